#include "api/api_call.h"

namespace fathom {

std::string server_sent_event(const Json& data, std::string_view name) {
  std::string out;
  if (!name.empty()) out += fmt::format("event: {}\n", name);
  // JSON on one line: control characters in its strings are escaped, so that nothing in it ends the event.
  out += "data: ";
  out += data.dump(-1, ' ', false, Json::error_handler_t::replace);
  out += "\n\n";
  return out;
}

ApiResult<std::string> read_model(const Json& body) {
  if (!body.is_object() || !body.contains("model") || body["model"].is_null()) return std::string();
  const Json& model = body["model"];
  if (!model.is_string()) return tl::unexpected(ApiError{422, "model: expected a text", "model"});
  return model.get<std::string>();
}

}  // namespace fathom
