#include "api/api_error.h"

#include "api/api_call.h"

namespace fathom {

std::string_view error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 402:
      return "insufficient_quota";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

Json error_json(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  return {{"error",
           {{"message", error.message},
            {"type", error_type(error.status)},
            {"param", or_null(error.param)},
            {"code", or_null(error.code)}}}};
}

Json error_body(ApiKind kind, const ApiError& error) {
  if (kind == ApiKind::kOpenAi) return error_json(error);
  Json inner = {{"type", error_type(error.status)}, {"message", error.message}};
  if (!error.code.empty()) inner["details"] = {{"error_code", error.code}};
  return {{"type", "error"}, {"error", std::move(inner)}};
}

std::string error_event(ApiKind kind, const ApiError& error) {
  return server_sent_event(error_body(kind, error), kind == ApiKind::kAnthropic ? "error" : "");
}

}  // namespace fathom
