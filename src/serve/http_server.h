// HTTP/1.1, on Boost.Beast: connections, limits and time-outs. What requests mean is the handler's business.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace fathom {

using HttpRequest = boost::beast::http::request<boost::beast::http::string_body>;
using HttpHeader = HttpRequest::header_type;
using HttpFields = std::vector<std::pair<std::string, std::string>>;

// "/v1/models" of "/v1/models?x=1".
std::string_view path_of(const HttpHeader& header);

struct HttpLimits {
  int64_t header_bytes = int64_t{16} << 10;
  int64_t body_bytes = int64_t{32} << 20;
  int64_t connections = 4096;
  std::chrono::seconds idle{120};   // between requests
  std::chrono::seconds header{10};  // for a header, from its first byte
  std::chrono::seconds body{120};   // for a body
  std::chrono::seconds write{60};   // without the client taking anything
};

struct HttpAnswer {
  unsigned status = 200;
  std::string type = "application/json";
  std::string body{};
  HttpFields fields{};
  bool close = false;  // the connection, after it
};

// An answer that is made in one go. In coroutines of this folder what is awaited is given named objects, by reference: GCC 12
// mishandles some temporaries there.
HttpAnswer json_answer(unsigned status, std::string body, HttpFields fields = {});

// A request and the way to its client. All on the network's thread. Once something was sent, one of `send` or
// `begin … end` must be completed, or the connection is closed.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  HttpRequest request;
  std::string peer;              // address of the client
  HttpFields fields{};           // go with whatever is answered
  std::shared_ptr<void> pass{};  // what `admit` gave it, until it is over
  bool closes = false;           // the connection, after what is answered
  unsigned status = 0;           // what was answered; 0: nothing yet

  // Whether the client has left: closed its side, or the connection is broken. A system call; no data is read.
  virtual bool gone() const = 0;
  // These return false when the client could not be reached any more; nothing else is to be done then.
  virtual boost::asio::awaitable<bool> send(HttpAnswer&& answer) = 0;
  // An answer in pieces; `head.body` is not looked at. trailer: fields that are known at the end only; HTTP/1.0 has none.
  virtual boost::asio::awaitable<bool> begin(HttpAnswer&& head) = 0;
  virtual boost::asio::awaitable<bool> write(std::string&& piece) = 0;
  virtual boost::asio::awaitable<bool> end(HttpFields&& trailer) = 0;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Before a body is read: an answer refuses it. The exchange has no request yet.
  virtual std::optional<HttpAnswer> admit(HttpExchange& exchange, const HttpHeader& header) = 0;
  virtual boost::asio::awaitable<void> handle(HttpExchange& exchange) = 0;
  // What is sent when the request itself is none: 400, 413, 431; or 503 with as many connections as may be.
  virtual HttpAnswer refusal(unsigned status, const std::string& message) = 0;
};

struct HttpServerSettings {
  std::string address = "127.0.0.1";           // IPv4 or IPv6
  uint16_t port = 0;                           // 0: any that is free
  std::filesystem::path certificate{}, key{};  // PEM, of TLS; both or none
  HttpLimits limits{};
};

// Everything runs on the one thread that runs the io_context, which must outlive it.
class HttpServer {
 public:
  static Result<std::unique_ptr<HttpServer>> listen(boost::asio::io_context& network,
                                                    const HttpServerSettings& settings, HttpHandler& handler);
  ~HttpServer();
  uint16_t port() const;
  int64_t connections() const;
  // Takes no more connections, and closes each when its request is answered.
  void drain();

 private:
  struct State;
  explicit HttpServer(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace fathom
