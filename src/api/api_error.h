// What a client is told when its request cannot be served.
#pragma once

#include <string>
#include <tl/expected.hpp>

#include "text/json.h"

namespace fathom {

struct ApiError {
  int status = 400;  // of HTTP
  std::string message;
  std::string param{};  // the member of the body that is at fault; empty: none alone
  std::string code{};   // for programs, "context_length_exceeded"
};

template <typename T>
using ApiResult = tl::expected<T, ApiError>;

// "invalid_request_error" and so on, from the status.
std::string_view error_type(int status);
// {"error": {"message", "type", "param", "code"}}
Json error_json(const ApiError& error);

// Whose clients are to understand it.
enum class ApiKind { kOpenAi, kAnthropic };
Json error_body(ApiKind kind, const ApiError& error);
// In a stream that has begun: a whole server-sent event.
std::string error_event(ApiKind kind, const ApiError& error);

}  // namespace fathom
