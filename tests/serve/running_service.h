// A service over the sample model, in this process, asked through its port.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "serve/raw_client.h"
#include "serve/service.h"

namespace fathom::test {

namespace asio = boost::asio;
using namespace std::chrono_literals;

inline ModelSettings sample() {
  ModelSettings model;
  model.name = "sample";
  model.aliases = {"deepseek"};
  model.folder = FATHOM_MODELS "/sample";
  model.engine.threads = 2;
  model.engine.context = 512;
  model.engine.cache = 16384;
  return model;
}

// A service that runs until the end of its test.
class Running {
 public:
  explicit Running(ServiceSettings settings, HttpLimits limits = {}) {
    if (settings.models.empty()) settings.models = {sample()};
    auto service = Service::open(network_, std::move(settings));
    if (!service) throw std::runtime_error(service.error().message);
    service_ = *std::move(service);
    HttpServerSettings http;
    http.limits = limits;
    auto server = HttpServer::listen(network_, http, *service_);
    if (!server) throw std::runtime_error(server.error().message);
    server_ = *std::move(server);
    port = server_->port();
    thread_ = std::thread([this] { network_.run(); });
    const Status started = asio::co_spawn(network_, service_->start(), asio::use_future).get();
    if (!started) throw std::runtime_error(started.error().message);
  }
  ~Running() {
    network_.stop();
    thread_.join();
  }
  bool drain(std::chrono::seconds most) {
    return asio::co_spawn(network_, service_->drain(most), asio::use_future).get();
  }

  uint16_t port = 0;

 private:
  asio::io_context network_{1};  // first, as in the program: what was cut off ends with it, after the service
  std::unique_ptr<Service> service_;
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

inline std::string head(const std::string& method, const std::string& path, const std::string& fields = "") {
  return method + " " + path + " HTTP/1.1\r\n" +
         (fields.find("Host:") == std::string::npos ? "Host: localhost\r\n" : "") + fields;
}
inline std::string post(const std::string& path, const std::string& body, const std::string& fields = "") {
  return head("POST", path, fields) + fmt::format("Content-Length: {}\r\n\r\n", body.size()) + body;
}
inline RawAnswer ask(uint16_t port, const std::string& request) {
  RawClient client(port);
  return client.ask(request);
}
inline RawAnswer get(uint16_t port, const std::string& path, const std::string& fields = "") {
  return ask(port, head("GET", path, fields) + "\r\n");
}

inline std::string completion(int64_t tokens, int64_t seed, bool stream = false,
                              const std::string& prompt = "What is 12 + 7?") {
  const Json body = {{"model", "sample"}, {"prompt", prompt},   {"max_tokens", tokens}, {"temperature", 0.8},
                     {"seed", seed},      {"ignore_eos", true}, {"stream", stream}};
  return post("/v1/completions", body.dump());
}
// Far more than is waited for.
inline std::string endless(bool stream = true) { return completion(400, 1, stream); }

inline std::string text_of(const RawAnswer& answer) {
  const Json body = Json::parse(answer.body, nullptr, false);
  return body.is_object() && body.contains("choices") ? body["choices"][0].value("text", "")
                                                      : "no completion: " + answer.body;
}
// Of a stream, every byte of which must be an event or a comment.
inline std::string streamed_text(const std::string& stream) {
  std::string text;
  size_t at = 0;
  bool done = false;
  while (at < stream.size()) {
    const size_t end = stream.find("\n\n", at);
    if (end == std::string::npos || done) return "no stream: " + stream;
    const std::string event = stream.substr(at, end - at);
    at = end + 2;
    if (event.starts_with(":")) continue;
    if (!event.starts_with("data: ")) return "no event: " + event;
    done = event == "data: [DONE]";
    if (!done) text += Json::parse(event.substr(6))["choices"][0]["text"].get<std::string>();
  }
  return done ? text : "no end: " + stream;
}
inline std::string error_of(const RawAnswer& answer) {
  const Json body = Json::parse(answer.body, nullptr, false);
  return body.is_object() && body.contains("error") ? body["error"].value("message", "") : "no error: " + answer.body;
}

inline double metric(uint16_t port, const std::string& name, const std::string& fields = "") {
  const std::string text = get(port, "/metrics", fields).body;
  for (size_t at = text.find("\n" + name); at != std::string::npos; at = text.find("\n" + name, at + 1)) {
    const char after = text[at + 1 + name.size()];
    if (after == '{' || after == ' ')
      return std::stod(text.substr(text.find_last_of(' ', text.find('\n', at + 1)) + 1));
  }
  return -1;
}
template <typename Condition>
bool becomes(const Condition& condition) {
  for (int i = 0; i < 500; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

}  // namespace fathom::test
