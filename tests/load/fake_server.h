// A server that plays what a test writes down: bytes, pauses, and how the connection ends.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "text/json.h"

namespace fathom::test {

struct Step {
  int wait_ms = 0;
  std::string bytes;  // as they go over the wire
};

struct Play {
  std::vector<Step> steps;
  bool keep_open = true;  // false: the connection is closed after the last step
};

struct FakeRequest {
  std::string method, target, body;
  std::map<std::string, std::string> headers;
  int connection = 0;  // from 0
  Json json() const { return Json::parse(body); }
};

// An HTTP answer with a body.
inline Play plain(int status, const std::string& body, const std::string& headers = "") {
  return {{{0, fmt::format("HTTP/1.1 {} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}\r\n{}", status,
                           body.size(), headers, body)}}};
}

inline constexpr std::string_view kStreamHeader =
    "HTTP/1.1 200 OK\r\nServer: fake\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
inline std::string http_chunk(std::string_view data) { return fmt::format("{:x}\r\n{}\r\n", data.size(), data); }
inline std::string event(const Json& json) { return "data: " + json.dump() + "\n\n"; }
inline std::string delta(const Json& members, const Json& finish = nullptr) {
  return event({{"choices", {{{"index", 0}, {"delta", members}, {"finish_reason", finish}}}}});
}
inline std::string usage_event(const Json& usage) { return event({{"choices", Json::array()}, {"usage", usage}}); }

// A strict stream: a chunk for each text, `gap_ms` before each but the first, which comes after `first_ms`.
struct Streamed {
  std::vector<std::string> reasoning{}, texts{};
  int first_ms = 0, gap_ms = 0;
  Json usage = nullptr;
  bool done = true;
};
inline Play stream(const Streamed& s) {
  Play play{{{0, std::string(kStreamHeader)}}};
  int wait = s.first_ms;
  const auto add = [&](const std::string& bytes) {
    play.steps.push_back({wait, http_chunk(bytes)});
    wait = s.gap_ms;
  };
  for (const std::string& text : s.reasoning) add(delta({{"reasoning_content", text}}));
  for (const std::string& text : s.texts) add(delta({{"content", text}}));
  std::string end = delta(Json::object(), "length");
  if (!s.usage.is_null()) end += usage_event(s.usage);
  if (s.done) end += "data: [DONE]\n\n";
  play.steps.push_back({0, http_chunk(end) + "0\r\n\r\n"});
  return play;
}

// Runs in a thread of its own from construction to destruction. The handler is called there, one request at a time.
class FakeServer {
 public:
  using Handler = std::function<Play(const FakeRequest&)>;

  // tls: with a certificate; otherwise plain.
  explicit FakeServer(Handler handler, boost::asio::ssl::context* tls = nullptr)
      : handler_(std::move(handler)), tls_(tls), acceptor_(io_, {boost::asio::ip::address_v4::loopback(), 0}) {
    boost::asio::co_spawn(io_, accept(), boost::asio::detached);
    thread_ = std::thread([this] { io_.run(); });
  }
  ~FakeServer() {
    io_.stop();
    thread_.join();
  }

  std::string url() const {
    return fmt::format("{}://127.0.0.1:{}", tls_ ? "https" : "http", acceptor_.local_endpoint().port());
  }
  std::vector<FakeRequest> requests(std::string_view target_end = "completions") const {
    const std::lock_guard lock(mutex_);
    std::vector<FakeRequest> out;
    for (const FakeRequest& request : requests_)
      if (request.target.ends_with(target_end)) out.push_back(request);
    return out;
  }
  // The most that were answered at a time.
  int most_running() const {
    const std::lock_guard lock(mutex_);
    return most_running_;
  }

 private:
  static constexpr auto kToken = boost::asio::as_tuple(boost::asio::use_awaitable);

  boost::asio::awaitable<void> accept() {
    for (int number = 0;; ++number) {
      auto [error, socket] = co_await acceptor_.async_accept(kToken);
      if (error) co_return;
      boost::system::error_code ignored;
      socket.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
      if (tls_)
        boost::asio::co_spawn(io_, serve_tls(std::move(socket), number), boost::asio::detached);
      else
        boost::asio::co_spawn(io_, serve(boost::beast::tcp_stream(std::move(socket)), number), boost::asio::detached);
    }
  }
  boost::asio::awaitable<void> serve_tls(boost::asio::ip::tcp::socket socket, int number) {
    boost::beast::ssl_stream<boost::beast::tcp_stream> stream(std::move(socket), *tls_);
    const auto [error] = co_await stream.async_handshake(boost::asio::ssl::stream_base::server, kToken);
    if (!error) co_await serve(std::move(stream), number);
  }
  template <typename Stream>
  boost::asio::awaitable<void> serve(Stream stream, int number) {
    boost::beast::flat_buffer buffer;
    while (true) {
      boost::beast::http::request<boost::beast::http::string_body> message;
      const auto [error, bytes] = co_await boost::beast::http::async_read(stream, buffer, message, kToken);
      if (error) co_return;
      FakeRequest request{
          std::string(message.method_string()), std::string(message.target()), message.body(), {}, number};
      for (const auto& field : message) request.headers[std::string(field.name_string())] = std::string(field.value());
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(request);
        most_running_ = std::max(most_running_, ++running_);
      }
      const Play play = handler_(request);
      bool broken = false;
      for (const Step& step : play.steps) {
        if (step.wait_ms > 0) {
          boost::asio::steady_timer timer(io_, std::chrono::milliseconds(step.wait_ms));
          co_await timer.async_wait(kToken);
        }
        const auto [failed, written] =
            co_await boost::asio::async_write(stream, boost::asio::buffer(step.bytes), kToken);
        broken = broken || failed;
      }
      {
        const std::lock_guard lock(mutex_);
        --running_;
      }
      if (broken || !play.keep_open) co_return;
    }
  }

  Handler handler_;
  boost::asio::ssl::context* tls_;
  mutable std::mutex mutex_;
  std::vector<FakeRequest> requests_;
  int running_ = 0, most_running_ = 0;
  boost::asio::io_context io_{1};
  boost::asio::ip::tcp::acceptor acceptor_;
  std::thread thread_;
};

}  // namespace fathom::test
