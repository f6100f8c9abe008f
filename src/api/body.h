// The members of a request's body, each read with what it may be.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/api_error.h"
#include "text/json.h"

namespace fathom {

// An object of the body. Members that are null count as absent. The first one that is wrong is kept, as an error of status 422
// that names it, what was found and what was expected; what is read goes on with a value that is allowed. Not thread-safe; the
// JSON must outlive it.
class Body {
 public:
  explicit Body(const Json& object) : object_(object) {}
  // An object inside of another, which must outlive it: errors are kept there, and name the member by its whole path.
  Body(Body& outer, const Json& object, std::string_view name)
      : object_(object), path_(fmt::format("{}{}.", outer.path_, name)), error_(outer.error_) {}
  Body(const Body&) = delete;
  Body& operator=(const Body&) = delete;

  const Json* find(std::string_view name) const;
  bool boolean(std::string_view name, bool fallback);
  double number(std::string_view name, double least, double most, double fallback);
  std::optional<int64_t> integer(std::string_view name, int64_t least, int64_t most);
  const std::string* text(std::string_view name);
  const Json* object(std::string_view name);
  const Json* list(std::string_view name);

  void wrong(std::string_view name, const Json& value, std::string_view expected);
  void fault(int status, std::string_view name, std::string_view message, std::string code = {});
  // For members that ask for what there is not, and cannot be left out in silence: whatever is neither absent, false nor empty.
  void refuse(std::string_view name, std::string_view why);
  // Of the whole body.
  const std::optional<ApiError>& error() const { return *error_; }
  std::string path_of(std::string_view name) const { return path_ + std::string(name); }

 private:
  const Json& object_;
  const std::string path_{};
  std::optional<ApiError> own_;
  std::optional<ApiError>* error_ = &own_;
};

// Of an object within: null when absent or null, and a member that has to be a text, named as WHERE.NAME where it is none.
const Json* member(const Json& object, const char* name);
Result<std::string> text_member(const Json& object, const char* name, const std::string& where);

// Of a body that is no object: status 400.
ApiResult<void> check_is_object(const Json& body);
// A value as it may stand in a message: its JSON, cut when long.
std::string shown(const Json& value);

}  // namespace fathom
