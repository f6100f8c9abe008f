#include "checkpoint/json_fields.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/quote.h"

namespace fathom {

using nlohmann::json;

std::string shown_json(const json& value) {
  if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "…";
  return text;
}

const json* JsonFields::find(const char* name) const {
  asked_.insert(name);
  const auto place = object_.find(name);
  return place == object_.end() || place->is_null() ? nullptr : &*place;
}

bool JsonFields::good(std::initializer_list<const char*> names) const {
  return std::none_of(names.begin(), names.end(), [&](const char* name) { return bad_.contains(name); });
}

int64_t JsonFields::integer(const char* name, int64_t least, int64_t most, std::optional<int64_t> fallback) {
  const std::string expected = fmt::format("a whole number from {} to {}", least, most);
  const json* value = find(name);
  if (!value) {
    if (!fallback) missing(name, expected);
    return fallback.value_or(least);
  }
  if (value->is_number_unsigned() && value->get<uint64_t>() <= static_cast<uint64_t>(most) &&
      static_cast<int64_t>(value->get<uint64_t>()) >= least)
    return static_cast<int64_t>(value->get<uint64_t>());
  found(name, *value, expected);
  return fallback.value_or(least);
}

double JsonFields::number(const char* name, double least, double most, bool closed, std::optional<double> fallback) {
  const std::string expected = fmt::format("a number {} {:g} and at most {:g}", closed ? "from" : "above", least, most);
  const json* value = find(name);
  if (!value) {
    if (!fallback) missing(name, expected);
    return fallback.value_or(most);
  }
  if (value->is_number()) {
    const double x = value->get<double>();
    if (std::isfinite(x) && x <= most && (closed ? x >= least : x > least)) return x;
  }
  found(name, *value, expected);
  return fallback.value_or(most);
}

bool JsonFields::boolean(const char* name, bool fallback) {
  const json* value = find(name);
  if (!value) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  found(name, *value, "true or false");
  return fallback;
}

std::string JsonFields::text(const char* name, std::optional<std::string> fallback) {
  const json* value = find(name);
  if (!value) {
    if (!fallback) missing(name, "a text");
    return fallback.value_or("");
  }
  if (value->is_string() && !value->get_ref<const std::string&>().empty()) return value->get<std::string>();
  found(name, *value, "a text that is not empty");
  return fallback.value_or("");
}

std::string JsonFields::word(const char* name, std::initializer_list<const char*> words, bool required) {
  const std::string expected = fmt::format("one of \"{}\"", fmt::join(words, "\", \""));
  const json* value = find(name);
  if (!value) {
    if (required) missing(name, expected);
    return *words.begin();
  }
  if (value->is_string() && std::find(words.begin(), words.end(), value->get_ref<const std::string&>()) != words.end())
    return value->get<std::string>();
  found(name, *value, expected);
  return *words.begin();
}

const json* JsonFields::object(const char* name, bool required) {
  const json* value = find(name);
  if (!value) {
    if (required) missing(name, "an object");
    return nullptr;
  }
  if (value->is_object()) return value;
  found(name, *value, "an object");
  return nullptr;
}

void JsonFields::only(const char* name, const json& wanted, const char* why) {
  const json* value = find(name);
  if (value && *value != wanted) found(name, *value, fmt::format("{}: {}", shown_json(wanted), why));
}

void JsonFields::missing(const char* name, const std::string& expected) {
  bad_.insert(name);
  problems_.add("{}{}: absent, expected {}", prefix_, name, expected);
}

void JsonFields::found(const char* name, const json& value, const std::string& expected) {
  bad_.insert(name);
  problems_.add("{}{}: found {}, expected {}", prefix_, name, shown_json(value), expected);
}

void JsonFields::refuse_others() {
  for (const auto& [name, value] : object_.items())
    if (!asked_.contains(name))
      problems_.add("{}{}: there is no such field, expected some of {}", prefix_, in_quotes(name),
                    fmt::join(asked_, ", "));
}

}  // namespace fathom
