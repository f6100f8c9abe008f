// HTTP/1.1 requests over connections that are kept, on Asio's coroutines. One thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/http/verb.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "load/answer_reader.h"
#include "load/server_url.h"

namespace fathom::load {

struct HttpRequest {
  boost::beast::http::verb method = boost::beast::http::verb::post;
  std::string target;  // the path
  std::string body;    // JSON; empty: none
};

using Clock = std::chrono::steady_clock;

struct HttpAnswer {
  // No answer, or not all of it: kConnect, kTimeout, kBrokenStream. A status other than 200 is none.
  std::optional<Failure> failure;
  int status = 0;  // 0: none came
  std::string content_type, server;
  std::optional<double> retry_after_s;
  std::optional<double> cost_usd;         // x-fathom-cost-usd, a header or a trailer
  std::string body;                       // of what no sink took; no more than kBodyBytes of it
  std::optional<double> connect_seconds;  // where a connection was made for it

  static constexpr size_t kBodyBytes = size_t{16} << 20;
};

class HttpClient {
 public:
  // api_key: as check_settings has approved it; empty: none is sent.
  static Result<std::unique_ptr<HttpClient>> create(boost::asio::io_context& io, const ServerUrl& server,
                                                    const std::string& api_key, bool insecure);
  ~HttpClient();

  // Looks the host up, once: what follows costs no look-ups.
  boost::asio::awaitable<Status> resolve();

  // Takes the body of an answer with status 200 as it comes, with the time at which the bytes were there. False: it has all
  // it wants; the answer then has two more seconds to end, so that the connection can be kept.
  using Sink = std::function<bool(std::string_view bytes, Clock::time_point at)>;
  // The request and its answer, on a kept connection or a new one. One that the server has closed meanwhile is replaced.
  // request: lives until the end.
  boost::asio::awaitable<HttpAnswer> send(const HttpRequest& request, Clock::time_point deadline, Sink sink);

  int64_t connections() const { return connections_; }  // made so far
  int64_t stale() const { return stale_; }              // of those, instead of ones that the server had closed

 private:
  class Connection;

  HttpClient(boost::asio::io_context& io, const ServerUrl& server, const std::string& api_key);
  boost::asio::awaitable<HttpAnswer> connect(Connection& connection, Clock::time_point deadline);

  boost::asio::io_context& io_;
  ServerUrl server_;
  std::string api_key_;
  std::optional<boost::asio::ssl::context> tls_;
  bool verify_host_ = false;
  boost::asio::ip::tcp::resolver::results_type endpoints_;
  std::vector<std::unique_ptr<Connection>> idle_;
  int64_t connections_ = 0, stale_ = 0;
};

}  // namespace fathom::load
