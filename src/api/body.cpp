#include "api/body.h"

#include <limits>
#include <utility>

#include "text/utf8.h"

namespace fathom {

const Json* Body::find(std::string_view name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool Body::boolean(std::string_view name, bool fallback) {
  const Json* value = find(name);
  if (value && !value->is_boolean()) wrong(name, *value, "true or false");
  return value && value->is_boolean() ? value->get<bool>() : fallback;
}

double Body::number(std::string_view name, double least, double most, double fallback) {
  const Json* value = find(name);
  if (!value) return fallback;
  const double x = value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
  if (x >= least && x <= most) return x;
  wrong(name, *value, fmt::format("a number from {:g} to {:g}", least, most));
  return fallback;
}

std::optional<int64_t> Body::integer(std::string_view name, int64_t least, int64_t most) {
  const Json* value = find(name);
  if (!value) return std::nullopt;
  const bool fits =
      value->is_number_unsigned() ? std::in_range<int64_t>(value->get<uint64_t>()) : value->is_number_integer();
  if (fits && value->get<int64_t>() >= least && value->get<int64_t>() <= most) return value->get<int64_t>();
  wrong(name, *value,
        most == std::numeric_limits<int64_t>::max() && least >= 0
            ? fmt::format("a whole number from {}", least)
            : fmt::format("a whole number from {} to {}", least, most));
  return std::nullopt;
}

const std::string* Body::text(std::string_view name) {
  const Json* value = find(name);
  if (value && !value->is_string()) wrong(name, *value, "a text");
  return value && value->is_string() ? &value->get_ref<const std::string&>() : nullptr;
}

const Json* Body::object(std::string_view name) {
  const Json* value = find(name);
  if (value && !value->is_object()) wrong(name, *value, "an object");
  return value && value->is_object() ? value : nullptr;
}

const Json* Body::list(std::string_view name) {
  const Json* value = find(name);
  if (value && !value->is_array()) wrong(name, *value, "a list");
  return value && value->is_array() ? value : nullptr;
}

void Body::wrong(std::string_view name, const Json& value, std::string_view expected) {
  fault(422, name, fmt::format("found {}, expected {}", shown(value), expected));
}

void Body::fault(int status, std::string_view name, std::string_view message, std::string code) {
  if (*error_) return;
  *error_ = ApiError{status, fmt::format("{}: {}", path_of(name), message), path_of(name), std::move(code)};
}

void Body::refuse(std::string_view name, std::string_view why) {
  const Json* value = find(name);
  if (!value || *value == false || value->empty() || *value == "") return;
  fault(422, name, fmt::format("found {}; {}", shown(*value), why));
}

ApiResult<void> check_is_object(const Json& body) {
  if (body.is_object()) return {};
  return tl::unexpected(ApiError{400, fmt::format("found {}, expected a JSON object", shown(body))});
}

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() <= 60) return text;
  text.resize(utf8_valid_prefix(std::string_view(text).substr(0, 57)));
  return text + "...";
}

const Json* member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Result<std::string> text_member(const Json& object, const char* name, const std::string& where) {
  const Json* text = member(object, name);
  if (!text || !text->is_string()) return fail("{}.{}: missing, or no text", where, name);
  return text->get<std::string>();
}

}  // namespace fathom
