// Inside of the service: what its two files share.
#pragma once

#include <boost/beast/http/field.hpp>
#include <boost/beast/http/verb.hpp>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "serve/service.h"

namespace fathom {

namespace asio = boost::asio;
namespace http = boost::beast::http;

// How a request is served: by one of the last three.
struct Service::Route {
  using Reader = ApiResult<ApiCall> (*)(const Json& body, const ApiContext& context);
  using Function = ApiResult<Json> (*)(const Json& body, const ApiContext& context);

  http::verb method = http::verb::get;
  std::string_view path{};  // "{}" stands for one part, such as an id
  ApiKind kind = ApiKind::kOpenAi;
  bool needs_key = true;
  Reader reader = nullptr;      // an answer of the model
  Function function = nullptr;  // computed from the body
  Work work = nullptr;
};

struct Service::Call {
  Call(HttpExchange& its_http, const Route& its_route) : http(its_http), route(its_route) {}

  HttpExchange& http;
  const Route& route;
  Principal principal;
  LedgerRow row;     // filled in as it goes on
  std::string id{};  // what stands in the path for "{}"
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();

  double elapsed_ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }
};

// "/v1/files/x" without the base that the API may be found at, "/files/x".
std::string_view without_base(std::string_view path);
// The value of a parameter of the target, "day" of "/usage?by=day"; empty: it has none of that name.
std::string_view parameter(const HttpHeader& header, std::string_view name);

inline std::string_view field(const HttpHeader& header, http::field name) {
  const auto value = header[name];
  return {value.data(), value.size()};
}

inline ApiError error_of(int status, std::string message, std::string param = {}, std::string code = {}) {
  return {status, std::move(message), std::move(param), std::move(code)};
}

}  // namespace fathom
