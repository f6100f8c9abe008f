#include "grammar/schema_compiler.h"

#include <algorithm>
#include <utility>

#include "base/quote.h"
#include "grammar/number_dfa.h"

namespace fathom {

using namespace json_types;

namespace {

// What says nothing about which documents fit.
constexpr std::string_view kAnnotations[] = {
    "title",    "description", "default", "examples",    "$schema",         "$comment",         "deprecated",
    "readOnly", "writeOnly",   "$defs",   "definitions", "contentEncoding", "contentMediaType", "$id"};
constexpr std::string_view kSupported[] = {"type",
                                           "enum",
                                           "const",
                                           "anyOf",
                                           "$ref",
                                           "properties",
                                           "required",
                                           "additionalProperties",
                                           "minProperties",
                                           "maxProperties",
                                           "items",
                                           "prefixItems",
                                           "minItems",
                                           "maxItems",
                                           "uniqueItems",
                                           "minLength",
                                           "maxLength",
                                           "pattern",
                                           "format",
                                           "minimum",
                                           "maximum",
                                           "exclusiveMinimum",
                                           "exclusiveMaximum",
                                           "multipleOf"};
constexpr std::pair<std::string_view, std::string_view> kRefused[] = {
    {"allOf", "merge the schemas into one"},
    {"oneOf", "that no other alternative fits cannot be seen to while writing; anyOf is supported"},
    {"not", "name what is allowed instead"},
    {"if", "use anyOf"},
    {"then", "use anyOf"},
    {"else", "use anyOf"},
    {"patternProperties", "name the properties, or use additionalProperties"},
    {"propertyNames", "name the properties"},
    {"dependentRequired", "use anyOf"},
    {"dependentSchemas", "use anyOf"},
    {"dependencies", "use anyOf"},
    {"contains", "use items or prefixItems"},
    {"minContains", "use items or prefixItems"},
    {"maxContains", "use items or prefixItems"},
    {"additionalItems", "use prefixItems and items"},
    {"unevaluatedProperties", "use additionalProperties"},
    {"unevaluatedItems", "use items"},
    {"contentSchema", "leave it out"},
    {"$anchor", "refer by $ref: \"#/$defs/…\""},
    {"$dynamicAnchor", "refer by $ref: \"#/$defs/…\""},
    {"$dynamicRef", "refer by $ref: \"#/$defs/…\""},
    {"$recursiveAnchor", "refer by $ref: \"#/$defs/…\""},
    {"$recursiveRef", "refer by $ref: \"#/$defs/…\""},
    {"$vocabulary", "leave it out"},
};

bool is_annotation(std::string_view keyword) {
  return std::ranges::find(kAnnotations, keyword) != std::end(kAnnotations) || keyword.starts_with("x-");
}

uint8_t type_of(const Json& value) {
  if (value.is_null()) return kNull;
  if (value.is_boolean()) return kBoolean;
  if (value.is_number_float())
    return value.get<double>() ==
                   static_cast<double>(static_cast<int64_t>(std::clamp(value.get<double>(), -9e18, 9e18)))
               ? kInteger
               : kFraction;
  if (value.is_number()) return kInteger;
  if (value.is_string()) return kString;
  return value.is_array() ? kArray : kObject;
}

constexpr std::pair<std::string_view, uint8_t> kTypes[] = {
    {"null", kNull},     {"boolean", kBoolean}, {"integer", kInteger}, {"number", kNumber},
    {"string", kString}, {"array", kArray},     {"object", kObject}};

}  // namespace

std::string schema_path(const std::string& path, std::string_view key) {
  const bool plain = !key.empty() && std::ranges::all_of(key, [](char c) {
    return c == '_' || c == '$' || c == '-' || ('0' <= c && c <= '9') || ('a' <= c && c <= 'z') ||
           ('A' <= c && c <= 'Z');
  });
  return plain ? fmt::format("{}.{}", path, key) : fmt::format("{}[{}]", path, in_quotes(key));
}

SchemaCompiler::SchemaCompiler(NodePool& nodes, const Json& schema, std::string path, std::u32string_view never_raw)
    : nodes_(nodes), schema_(schema), path_(std::move(path)), never_raw_(never_raw) {}

Status SchemaCompiler::finish() {
  // Each pending schema is compiled once for each set of types: bounded by the document, and by the pool's limits.
  while (!pending_.empty() && nodes_.status() && problems_.size() < kMaxProblems) {
    const Pending next = std::move(pending_.front());
    pending_.pop_front();
    next.reference->children = {compile(*next.schema, next.path, next.types, next.form)};
  }
  if (problems_.empty()) return nodes_.status();
  std::string all;
  for (const std::string& one : problems_) all += (all.empty() ? "" : "\n") + one;
  if (problems_.size() >= kMaxProblems) all += "\n… and no more were looked for";
  return fail("{}", all);
}

void SchemaCompiler::problem(const std::string& path, std::string_view what) {
  std::string text = fmt::format("{}: {}", path, what);
  if (problems_.size() < kMaxProblems && known_problems_.insert(text).second) problems_.push_back(std::move(text));
}

const Node* SchemaCompiler::compile(const Json& schema, const std::string& path, uint8_t types, Form form) {
  if (types == 0 || !nodes_.status()) return nodes_.impossible();
  if (schema.is_boolean()) return schema.get<bool>() ? anything(types, form) : nodes_.impossible();
  if (!schema.is_object()) {
    problem(path, fmt::format("found {}, expected a schema: an object, or true or false", schema.type_name()));
    return nodes_.impossible();
  }
  if (depth_ >= kMaxSchemaDepth) {
    problem(path, fmt::format("nested deeper than the {} levels that are accepted", kMaxSchemaDepth));
    return nodes_.impossible();
  }
  check_keywords(schema, path);
  ++depth_;
  const Node* node = nullptr;
  if (schema.contains("$ref")) {
    node = refer(schema, path, types, form);
  } else if (schema.contains("anyOf")) {
    node = any_of(schema, path, types, form);
  } else if (schema.contains("enum") || schema.contains("const")) {
    node = listed(schema, path, types, form);
  } else {
    node = compile_types(schema, path, types & declared_types(schema, path), form);
  }
  --depth_;
  return node;
}

void SchemaCompiler::check_keywords(const Json& schema, const std::string& path) {
  if (!checked_.insert(path).second) return;
  for (const auto& [keyword, value] : schema.items()) {
    const std::string where = schema_path(path, keyword);
    const auto refused = std::ranges::find(kRefused, keyword, &std::pair<std::string_view, std::string_view>::first);
    if (refused != std::end(kRefused)) {
      problem(where, fmt::format("not supported; {}", refused->second));
    } else if (keyword == "uniqueItems" && value != Json(false)) {
      problem(where, "not supported; that all elements differ cannot be seen to while writing");
    } else if (keyword == "$id" && &schema != &schema_) {
      problem(where, "not supported below the root; refer by $ref: \"#/$defs/…\"");
    } else if (std::ranges::find(kSupported, keyword) == std::end(kSupported) && !is_annotation(keyword)) {
      problem(where, "no keyword that is known; leave it out");
    }
  }
}

// anyOf, $ref, enum: what stands beside them would have to hold as well.
bool SchemaCompiler::only_beside(const Json& schema, const std::string& path, std::string_view keyword) {
  bool only = true;
  for (const auto& [other, value] : schema.items()) {
    if (other == keyword || other == "type" || is_annotation(other)) continue;
    problem(schema_path(path, other),
            fmt::format("not supported beside {}; move it into what {} names", keyword, keyword));
    only = false;
  }
  return only;
}

uint8_t SchemaCompiler::declared_types(const Json& schema, const std::string& path) {
  const auto found = schema.find("type");
  if (found == schema.end()) return kAll;
  const std::string where = schema_path(path, "type");
  const auto one = [&](const Json& name, const std::string& name_path) -> uint8_t {
    if (name.is_string()) {
      for (const auto& [known, bits] : kTypes) {
        if (name.get_ref<const std::string&>() == known) return bits;
      }
    }
    problem(name_path, fmt::format("found {}, expected null, boolean, integer, number, string, array or object",
                                   in_quotes(name.is_string() ? name.get<std::string>() : name.type_name())));
    return kAll;
  };
  if (!found->is_array()) return one(*found, where);
  uint8_t types = 0;
  for (size_t i = 0; i < found->size(); ++i) types |= one((*found)[i], fmt::format("{}[{}]", where, i));
  if (types == 0) problem(where, "an empty list of types");
  return types;
}

const Node* SchemaCompiler::any_of(const Json& schema, const std::string& path, uint8_t types, Form form) {
  const std::string where = schema_path(path, "anyOf");
  const Json& list = schema["anyOf"];
  if (!only_beside(schema, path, "anyOf")) return nodes_.impossible();
  if (!list.is_array() || list.empty()) {
    problem(where, "expected a list of schemas");
    return nodes_.impossible();
  }
  types &= declared_types(schema, path);
  std::vector<const Node*> parts;
  for (size_t i = 0; i < list.size(); ++i)
    parts.push_back(compile(list[i], fmt::format("{}[{}]", where, i), types, form));
  return nodes_.alternatives(std::move(parts));
}

const Json* SchemaCompiler::resolve(std::string_view pointer) const {
  const Json* at = &schema_;
  while (!pointer.empty()) {
    if (pointer[0] != '/') return nullptr;
    pointer.remove_prefix(1);
    const std::string_view part = pointer.substr(0, pointer.find('/'));
    pointer.remove_prefix(part.size());
    std::string key;
    for (size_t i = 0; i < part.size(); ++i) {
      if (part[i] == '~' && i + 1 < part.size() && (part[i + 1] == '0' || part[i + 1] == '1')) {
        key += part[++i] == '0' ? '~' : '/';
      } else if (part[i] == '~' || part[i] == '%') {
        return nullptr;
      } else {
        key += part[i];
      }
    }
    if (at->is_array()) {
      const bool number = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == key.npos;
      if (!number || std::stoul(key) >= at->size()) return nullptr;
      at = &(*at)[std::stoul(key)];
    } else {
      if (!at->is_object() || !at->contains(key)) return nullptr;
      at = &(*at)[key];
    }
  }
  return at;
}

const Node* SchemaCompiler::refer(const Json& schema, const std::string& path, uint8_t types, Form form) {
  const std::string where = schema_path(path, "$ref");
  const Json& pointer = schema["$ref"];
  if (!only_beside(schema, path, "$ref")) return nodes_.impossible();
  types &= declared_types(schema, path);
  const std::string text = pointer.is_string() ? pointer.get<std::string>() : pointer.dump();
  const Json* target = text.starts_with('#') ? resolve(std::string_view(text).substr(1)) : nullptr;
  if (!pointer.is_string() || target == nullptr) {
    problem(where, fmt::format("{} is no place in this document; expected \"#\" or \"#/$defs/…\"", in_quotes(text)));
    return nodes_.impossible();
  }
  const auto [found, is_new] = references_.try_emplace({target, types, form}, nullptr);
  if (is_new) {
    Node* reference = nodes_.reference();
    reference->children = {nodes_.nothing()};
    nodes_.name(reference, where);
    found->second = reference;
    std::string target_path = path_ + text.substr(1);
    std::ranges::replace(target_path, '/', '.');
    pending_.push_back({reference, target, std::move(target_path), types, form});
  }
  return found->second;
}

const Node* SchemaCompiler::anything(uint8_t types, Form form) {
  static const Json kAnything = Json::object();
  const auto [found, is_new] = references_.try_emplace({&kAnything, types, form}, nullptr);
  if (is_new) {
    Node* reference = nodes_.reference();
    reference->children = {nodes_.nothing()};
    found->second = reference;
    pending_.push_back({reference, &kAnything, path_, types, form});
  }
  return found->second;
}

const Node* SchemaCompiler::listed(const Json& schema, const std::string& path, uint8_t types, Form form) {
  types &= declared_types(schema, path);
  std::vector<const Json*> values;
  std::string where = schema_path(path, "const");
  if (const auto found = schema.find("const"); found != schema.end()) values = {&*found};
  if (const auto found = schema.find("enum"); found != schema.end()) {
    const std::string enum_path = schema_path(path, "enum");
    if (!found->is_array() || found->empty() || found->size() > grammar_limits::kMaxEnumValues) {
      problem(enum_path, fmt::format("expected a list of 1 to {} values", grammar_limits::kMaxEnumValues));
      return nodes_.impossible();
    }
    std::vector<const Json*> both;
    for (const Json& value : *found) {
      if (values.empty() || *values[0] == value) both.push_back(&value);
    }
    values = std::move(both);
    where = enum_path;
  }
  // What stands beside them has to allow them.
  std::erase_if(values, [types](const Json* value) { return (type_of(*value) & types) == 0; });
  std::optional<TextDfa> strings = TextDfa::any();
  if (std::ranges::any_of(values, [](const Json* value) { return value->is_string(); })) {
    const Strings keywords = string_keywords(schema, path);
    strings = text_dfa(keywords, path, true, Form::kJson);
    if (keywords.at_least > keywords.at_most)
      std::erase_if(values, [](const Json* value) { return value->is_string(); });
  }
  NumberRange range;
  std::optional<ByteDfa> numbers;
  if (std::ranges::any_of(values, [](const Json* value) { return value->is_number(); })) {
    if (!number_range(schema, path, range)) return nodes_.impossible();
    if (!range.bounds.empty() || range.multiple_of > 1) {
      auto dfa = number_dfa(range);
      if (!dfa) {
        problem(path, dfa.error().message);
        return nodes_.impossible();
      }
      numbers = *std::move(dfa);
    }
  }
  if (!strings) return nodes_.impossible();
  std::vector<std::string> texts;
  std::vector<const Node*> parts;
  for (const Json* value : values) {
    if (value->is_string() && !strings->matches(value->get_ref<const std::string&>())) continue;
    if (value->is_number() && numbers && (numbers->states.empty() || !numbers->accepts(value->dump()))) continue;
    if (value->is_structured()) {
      for (const char* other : {"properties", "required", "additionalProperties", "minProperties", "maxProperties",
                                "items", "prefixItems", "minItems", "maxItems"}) {
        if (!schema.contains(other)) continue;
        problem(schema_path(path, other), "not supported beside an enum of arrays or objects");
      }
      parts.push_back(constant(*value, where));
    } else if (!value->is_string()) {
      texts.push_back(value->dump());
    } else if (form == Form::kJson) {
      texts.push_back(json_string(value->get_ref<const std::string&>()));
    } else if (text_without(never_raw_).matches(value->get_ref<const std::string&>())) {
      texts.push_back(value->get<std::string>());
    } else {
      problem(where, fmt::format("{} contains what would end the parameter", in_quotes(value->get<std::string>())));
    }
  }
  if (!texts.empty()) parts.push_back(nodes_.bytes(literal_dfa(texts)));
  return nodes_.alternatives(std::move(parts));
}

// Arrays and objects of a const: their members in the order in which the schema has them.
const Node* SchemaCompiler::constant(const Json& value, const std::string& path) {
  if (value.is_string()) return nodes_.literal(json_string(value.get_ref<const std::string&>()));
  if (!value.is_structured()) return nodes_.literal(value.dump());
  if (depth_ >= kMaxSchemaDepth) {
    problem(path, fmt::format("nested deeper than the {} levels that are accepted", kMaxSchemaDepth));
    return nodes_.impossible();
  }
  ++depth_;
  std::vector<const Node*> parts{nodes_.literal(value.is_array() ? "[" : "{"), white_space()};
  for (const auto& [key, element] : value.items()) {
    if (parts.size() > 2) parts.push_back(comma());
    if (value.is_object()) {
      const std::string name = json_string(key);
      parts.push_back(nodes_.bytes(literal_dfa(std::vector<std::string>{name + ":", name + ": "})));
    }
    parts.push_back(constant(element, path));
  }
  if (!value.empty()) parts.push_back(white_space());
  parts.push_back(nodes_.literal(value.is_array() ? "]" : "}"));
  --depth_;
  return nodes_.nest(nodes_.concat(std::move(parts)));
}

std::string SchemaCompiler::json_string(std::string_view text) const {
  std::string result = "\"";
  append_json_escaped(result, text);
  if (!never_raw_.empty() && !text_without(never_raw_).matches(text)) {
    for (size_t at = 0; (at = result.find('<', at)) != result.npos;) result.replace(at, 1, "\\u003c");
  }
  return result + '"';
}

const Node* SchemaCompiler::white_space() {
  if (white_space_ == nullptr) white_space_ = nodes_.bytes(white_space_dfa());
  return white_space_;
}

const Node* SchemaCompiler::comma() {
  if (comma_ == nullptr) comma_ = nodes_.concat({nodes_.literal(","), white_space()});
  return comma_;
}

}  // namespace fathom
