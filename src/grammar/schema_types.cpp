// The keywords of each type.
#include <algorithm>
#include <utility>

#include "base/quote.h"
#include "grammar/formats.h"
#include "grammar/number_dfa.h"
#include "grammar/regex.h"
#include "grammar/schema_compiler.h"
#include "text/chat_tokens.h"

namespace fathom {

using namespace json_types;

const Node* SchemaCompiler::compile_types(const Json& schema, const std::string& path, uint8_t types, Form form) {
  std::vector<const Node*> parts;
  std::vector<std::string> words;
  if ((types & kNull) != 0) words.emplace_back("null");
  if ((types & kBoolean) != 0) words.insert(words.end(), {"true", "false"});
  if (!words.empty()) parts.push_back(nodes_.bytes(literal_dfa(words)));
  if ((types & kNumber) != 0) parts.push_back(number(schema, path, (types & kFraction) == 0));
  if ((types & kString) != 0) parts.push_back(string(schema, path, form));
  if ((types & kArray) != 0) parts.push_back(array(schema, path));
  if ((types & kObject) != 0) parts.push_back(object(schema, path, Form::kJson));
  return nodes_.alternatives(std::move(parts));
}

uint32_t SchemaCompiler::count(const Json& schema, const std::string& path, const char* keyword, uint32_t otherwise) {
  constexpr double kMost = 1e9;
  const auto found = schema.find(keyword);
  if (found == schema.end()) return otherwise;
  const double value = found->is_number() ? found->get<double>() : -1;
  if (!(0 <= value && value <= kMost) || value != static_cast<double>(static_cast<uint32_t>(value))) {
    problem(schema_path(path, keyword), fmt::format("found {}, expected an integer from 0 to 1,000,000,000",
                                                    found->is_number() ? found->dump() : found->type_name()));
    return otherwise;
  }
  return static_cast<uint32_t>(value);
}

SchemaCompiler::Strings SchemaCompiler::string_keywords(const Json& schema, const std::string& path) {
  Strings strings;
  strings.at_least = count(schema, path, "minLength", 0);
  strings.at_most = count(schema, path, "maxLength", kUnlimited);
  for (const auto& [keyword, target] : {std::pair("pattern", &strings.pattern), std::pair("format", &strings.format)}) {
    const auto found = schema.find(keyword);
    if (found == schema.end()) continue;
    if (found->is_string()) {
      *target = &*found;
    } else {
      problem(schema_path(path, keyword), fmt::format("found {}, expected a string", found->type_name()));
    }
  }
  return strings;
}

bool SchemaCompiler::take_work(size_t work, const std::string& path) {
  const bool enough = work <= work_left_;
  work_left_ -= std::min(work, work_left_);
  if (!enough) {
    problem(path, fmt::format("the schema's patterns together need more than {} steps; make them simpler, or fewer",
                              grammar_limits::kMaxSchemaWork));
  }
  return enough;
}

std::optional<TextDfa> SchemaCompiler::text_dfa(const Strings& strings, const std::string& path, bool with_lengths,
                                                Form form) {
  TextDfa dfa = TextDfa::any();
  // Takes the result of a step over, unless it failed.
  const auto set = [&](Result<TextDfa> next, const std::string& where) {
    if (next) {
      dfa = *std::move(next);
    } else {
      problem(where, next.error().message);
    }
    return next.has_value();
  };
  // Both `dfa` and `other`; a product has as many states as they have together, at most.
  const auto both = [&](const TextDfa& other, const std::string& where) {
    const size_t states = std::min(dfa.states() * other.states(), grammar_limits::kMaxTextStates);
    const size_t classes = std::max(dfa.classes.count * other.classes.count, dfa.classes.count + other.classes.count);
    return take_work(states * classes, where) && set(intersection(dfa, other), where);
  };
  if (strings.format != nullptr) {
    const std::string where = schema_path(path, "format");
    const std::string& name = strings.format->get_ref<const std::string&>();
    const auto pattern = format_pattern(name);
    if (!pattern) {
      problem(where,
              fmt::format("{} is not supported; date, time, date-time, email, uuid and ipv4 are", in_quotes(name)));
      return std::nullopt;
    }
    if (!set(compile_regex(*pattern, RegexMatch::kWhole, work_left_), where)) return std::nullopt;
  }
  if (strings.pattern != nullptr) {
    const std::string where = schema_path(path, "pattern");
    const auto pattern =
        compile_regex(strings.pattern->get_ref<const std::string&>(), RegexMatch::kAnywhere, work_left_);
    if (!pattern) {
      problem(where, pattern.error().message);
      return std::nullopt;
    }
    if (!both(*pattern, where)) return std::nullopt;
  }
  if (form == Form::kRaw && !both(text_without(never_raw_), path)) return std::nullopt;
  if (with_lengths && strings.at_least <= strings.at_most && (strings.at_least > 0 || strings.at_most != kUnlimited)) {
    const std::string where = schema_path(path, strings.at_most == kUnlimited ? "minLength" : "maxLength");
    const size_t lengths = 1 + size_t{strings.at_most == kUnlimited ? strings.at_least : strings.at_most};
    const size_t states = std::min(dfa.states() * lengths, grammar_limits::kMaxTextStates);
    if (!take_work(states * dfa.classes.count, where)) return std::nullopt;
    if (!set(with_length(dfa, strings.at_least, strings.at_most), where)) return std::nullopt;
  }
  return dfa;
}

std::shared_ptr<const TextProgram> SchemaCompiler::text_program(const Strings& strings, const std::string& path,
                                                                Form form, uint32_t& at_least, uint32_t& at_most) {
  // Lengths alone are counted; with more to heed they become part of the automaton.
  const bool counted = strings.pattern == nullptr && strings.format == nullptr && form == Form::kJson;
  at_least = counted ? strings.at_least : 0;
  at_most = counted ? strings.at_most : kUnlimited;
  const auto text = [](const Json* keyword) { return keyword == nullptr ? std::string() : keyword->dump(); };
  const auto key = std::tuple(text(strings.pattern), text(strings.format), counted ? 0 : strings.at_least,
                              counted ? kUnlimited : strings.at_most, form);
  auto& program = programs_[key];
  if (program != nullptr) return program;
  auto dfa = text_dfa(strings, path, !counted, form);
  if (!dfa || dfa->empty() || !take_work(dfa->table.size(), path)) return nullptr;
  auto made = TextProgram::make(*std::move(dfa), form == Form::kRaw ? TextForm::kRaw : TextForm::kJson,
                                form == Form::kRaw ? std::u32string_view() : never_raw_);
  if (!made) {
    problem(path, made.error().message);
    return nullptr;
  }
  program = *std::move(made);
  return program;
}

const Node* SchemaCompiler::string(const Json& schema, const std::string& path, Form form) {
  const Strings strings = string_keywords(schema, path);
  if (strings.at_least > strings.at_most) return nodes_.impossible();
  uint32_t at_least = 0, at_most = 0;
  auto program = text_program(strings, path, form, at_least, at_most);
  if (program == nullptr) return nodes_.impossible();
  const Node* text = nodes_.text(std::move(program), at_least, at_most);
  if (form == Form::kRaw) return text;
  return nodes_.concat({nodes_.literal("\""), text, nodes_.literal("\"")});
}

bool SchemaCompiler::number_range(const Json& schema, const std::string& path, NumberRange& range) {
  bool good = true;
  constexpr std::tuple<const char*, bool, bool> kBounds[] = {{"minimum", true, false},
                                                             {"maximum", false, false},
                                                             {"exclusiveMinimum", true, true},
                                                             {"exclusiveMaximum", false, true}};
  for (const auto& [keyword, is_minimum, exclusive] : kBounds) {
    const auto found = schema.find(keyword);
    if (found == schema.end()) continue;
    const auto value = found->is_number() ? decimal_from_json(*found)
                                          : Result<Decimal>(fail("found {}, expected a number", found->type_name()));
    if (value) {
      range.bounds.push_back({*value, is_minimum, exclusive});
    } else {
      problem(schema_path(path, keyword), value.error().message);
      good = false;
    }
  }
  if (const auto found = schema.find("multipleOf"); found != schema.end()) {
    const double value = found->is_number() ? found->get<double>() : 0;
    if (!(1 <= value && value <= static_cast<double>(grammar_limits::kMaxMultipleOf)) ||
        value != static_cast<double>(static_cast<uint64_t>(value))) {
      problem(schema_path(path, "multipleOf"),
              fmt::format("found {}, only integers from 1 to {} are supported",
                          found->is_number() ? found->dump() : found->type_name(), grammar_limits::kMaxMultipleOf));
      good = false;
    } else {
      range.multiple_of = static_cast<uint64_t>(value);
      range.integer = true;
    }
  }
  return good;
}

const Node* SchemaCompiler::number(const Json& schema, const std::string& path, bool integer) {
  NumberRange range;
  if (!number_range(schema, path, range)) return nodes_.impossible();
  range.integer = range.integer || integer;
  auto dfa = number_dfa(range);
  if (!dfa) problem(path, dfa.error().message);
  if (!dfa || dfa->states.empty()) return nodes_.impossible();
  return nodes_.bytes(*std::move(dfa));
}

const Node* SchemaCompiler::array(const Json& schema, const std::string& path) {
  const uint32_t at_least = count(schema, path, "minItems", 0), at_most = count(schema, path, "maxItems", kUnlimited);
  if (at_least > at_most) return nodes_.impossible();
  std::vector<const Node*> prefix;
  if (const auto found = schema.find("prefixItems"); found != schema.end()) {
    const std::string where = schema_path(path, "prefixItems");
    if (!found->is_array() || found->empty() || found->size() > grammar_limits::kMaxPrefixItems) {
      problem(where, fmt::format("expected a list of 1 to {} schemas", grammar_limits::kMaxPrefixItems));
      return nodes_.impossible();
    }
    for (size_t i = 0; i < found->size(); ++i) {
      prefix.push_back(compile((*found)[i], fmt::format("{}[{}]", where, i), kAll, Form::kJson));
    }
  }
  const auto items = schema.find("items");
  if (items != schema.end() && items->is_array()) {
    problem(schema_path(path, "items"), "a list of schemas is not supported; use prefixItems");
    return nodes_.impossible();
  }
  const Node* item = items == schema.end() ? anything(kAll, Form::kJson)
                                           : compile(*items, schema_path(path, "items"), kAll, Form::kJson);
  // What follows the prefix, from the end: each element may be the last one when the array is long enough.
  const auto before = static_cast<uint32_t>(prefix.size());
  const auto minus = [](uint32_t a, uint32_t b) { return a == kUnlimited ? a : a > b ? a - b : 0; };
  const Node* rest = nullptr;
  if (before == 0) {
    rest = at_most == 0
               ? nodes_.nothing()
               : nodes_.concat({white_space(), item,
                                nodes_.repeat(nodes_.concat({comma(), item}), minus(at_least, 1), minus(at_most, 1))});
    if (at_least == 0 && at_most > 0) rest = nodes_.optional(rest);
  } else {
    rest = nodes_.repeat(nodes_.concat({comma(), item}), minus(at_least, before), minus(at_most, before));
    for (uint32_t i = before; i-- > 0;) {
      if (i >= at_most) {
        rest = nodes_.nothing();
        continue;
      }
      rest = nodes_.concat({i == 0 ? white_space() : comma(), prefix[i], rest});
      if (i >= at_least) rest = nodes_.optional(rest);
    }
  }
  return nodes_.nest(nodes_.concat({nodes_.literal("["), rest, white_space(), nodes_.literal("]")}));
}

const Node* SchemaCompiler::object(const Json& schema, const std::string& path, Form form) {
  Node members{.kind = Node::Kind::kMembers};
  members.at_least = count(schema, path, "minProperties", 0);
  members.at_most = count(schema, path, "maxProperties", kUnlimited);
  if (members.at_least > members.at_most) return nodes_.impossible();
  const bool counted = members.at_least > 0 || members.at_most != kUnlimited;

  std::vector<std::string> names;
  std::vector<const Json*> schemas;
  std::vector<std::string> paths;
  if (const auto found = schema.find("properties"); found != schema.end()) {
    const std::string where = schema_path(path, "properties");
    const size_t most = counted ? grammar_limits::kMaxCountedProperties : grammar_limits::kMaxProperties;
    if (!found->is_object() || found->size() > most) {
      problem(where, fmt::format("expected an object of at most {} properties{}", most,
                                 counted ? " beside minProperties or maxProperties" : ""));
      return nodes_.impossible();
    }
    for (const auto& [name, value] : found->items()) {
      names.push_back(name);
      schemas.push_back(&value);
      paths.push_back(schema_path(where, name));
    }
  }
  const auto other = schema.find("additionalProperties");
  const std::string other_path = schema_path(path, "additionalProperties");
  const Json kTrue = true;
  const Json& other_schema = other == schema.end() ? kTrue : *other;
  std::set<std::string> required;
  if (const auto found = schema.find("required"); found != schema.end()) {
    const std::string where = schema_path(path, "required");
    if (!found->is_array() || found->size() > grammar_limits::kMaxProperties) {
      problem(where, fmt::format("expected a list of at most {} names", grammar_limits::kMaxProperties));
      return nodes_.impossible();
    }
    for (size_t i = 0; i < found->size(); ++i) {
      if (!(*found)[i].is_string()) {
        problem(fmt::format("{}[{}]", where, i), "expected a name");
        continue;
      }
      required.insert((*found)[i].get<std::string>());
    }
  }
  // Required but not described: of the schema of the others, after those that are.
  for (const std::string& name : required) {
    if (std::ranges::find(names, name) != names.end()) continue;
    names.push_back(name);
    schemas.push_back(&other_schema);
    paths.push_back(other_path);
  }
  for (size_t i = 0; i < names.size(); ++i) {
    members.children.push_back(member(names[i], *schemas[i], paths[i], form));
    members.required.push_back(required.contains(names[i]));
  }
  if (!other_schema.is_boolean() || other_schema.get<bool>()) {
    if (members.at_least > 0) {
      problem(schema_path(path, "minProperties"),
              "only supported beside additionalProperties: false; names of others may come twice");
    }
    members.other = other_member(names, other_schema, other_path, form);
  }
  if (form == Form::kRaw) {
    members.first = nodes_.nothing();
    members.between = nodes_.literal("\n");
    return nodes_.members(std::move(members));
  }
  members.first = white_space();
  members.between = comma();
  const Node* inside = nodes_.members(std::move(members));
  return nodes_.nest(nodes_.concat({nodes_.literal("{"), inside, white_space(), nodes_.literal("}")}));
}

const Node* SchemaCompiler::member(std::string_view name, const Json& schema, const std::string& path, Form form) {
  if (form == Form::kJson) {
    const std::string key = json_string(name);
    const Node* before = nodes_.bytes(literal_dfa(std::vector<std::string>{key + ":", key + ": "}));
    return nodes_.concat({before, compile(schema, path, kAll, form)});
  }
  const bool plain = !name.empty() && std::ranges::all_of(name, [](char c) {
    return static_cast<uint8_t>(c) >= 0x20 && c != '"' && c != '<' && c != '>';
  });
  if (!plain) problem(path, "a parameter's name must not be empty or have quotes, < or >");
  // Strings stand as they are; whatever else is JSON.
  const auto head = [&](const char* is_string) { return fmt::format(" name=\"{}\" string=\"{}\">", name, is_string); };
  const Node* string = nodes_.concat({nodes_.literal(head("true")), compile(schema, path, kString, Form::kRaw)});
  const Node* json =
      nodes_.concat({nodes_.literal(head("false")), compile(schema, path, kAll & ~kString, Form::kJson)});
  return nodes_.concat({nodes_.mark(chat_tokens::kParameter), nodes_.alternatives({string, json}),
                        nodes_.mark(chat_tokens::kEndParameter)});
}

const Node* SchemaCompiler::other_member(const std::vector<std::string>& names, const Json& schema,
                                         const std::string& path, Form form) {
  auto others = all_but(names);
  if (others && !take_work(others->table.size(), path)) return nodes_.impossible();
  if (!others) {
    problem(path, others.error().message);
    return nodes_.impossible();
  }
  if (form == Form::kJson) {
    auto program = TextProgram::make(*std::move(others), TextForm::kJson, never_raw_);
    if (!program) {
      problem(path, program.error().message);
      return nodes_.impossible();
    }
    const Node* colon = nodes_.bytes(literal_dfa(std::vector<std::string>{"\":", "\": "}));
    return nodes_.concat(
        {nodes_.literal("\""), nodes_.text(*std::move(program)), colon, compile(schema, path, kAll, form)});
  }
  // A name as parameters may have it: printable, without what ends it.
  auto simple =
      compile_regex(fmt::format("[!#-;=?-~]{{1,{}}}", grammar_limits::kMaxFreeNameCharacters), RegexMatch::kWhole);
  if (simple) simple = intersection(*simple, *others);
  if (!simple) {
    problem(path, simple.error().message);
    return nodes_.impossible();
  }
  auto program = TextProgram::make(*std::move(simple), TextForm::kRaw, {});
  if (!program) {
    problem(path, program.error().message);
    return nodes_.impossible();
  }
  const Node* string =
      nodes_.concat({nodes_.literal("\" string=\"true\">"), compile(schema, path, kString, Form::kRaw)});
  const Node* json =
      nodes_.concat({nodes_.literal("\" string=\"false\">"), compile(schema, path, kAll & ~kString, Form::kJson)});
  return nodes_.concat({nodes_.mark(chat_tokens::kParameter), nodes_.literal(" name=\""),
                        nodes_.text(*std::move(program)), nodes_.alternatives({string, json}),
                        nodes_.mark(chat_tokens::kEndParameter)});
}

const Node* SchemaCompiler::dsml_parameters() {
  if (!schema_.is_object()) {
    problem(path_, fmt::format("found {}, expected the schema of an object", schema_.type_name()));
    return nodes_.impossible();
  }
  check_keywords(schema_, path_);
  for (const char* keyword : {"$ref", "anyOf", "enum", "const"}) {
    if (schema_.contains(keyword))
      problem(schema_path(path_, keyword), "not supported for the whole of a call's parameters");
  }
  if ((declared_types(schema_, path_) & kObject) == 0) problem(schema_path(path_, "type"), "expected object");
  return object(schema_, path_, Form::kRaw);
}

}  // namespace fathom
