#include "load/http_client.h"

#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/read_size.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "net/await.h"

namespace fathom::load {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr size_t kReadBytes = size_t{64} << 10;
constexpr std::chrono::seconds kConnectTime{30}, kEndTime{2};

using Outgoing = http::request<http::string_body>;
using Parser = http::response_parser<http::string_body>;

Failure failure_of(const error_code& error, std::string_view during) {
  if (error == beast::error::timeout) return {FailureKind::kTimeout, fmt::format("no time left {}", during)};
  return {FailureKind::kBrokenStream, fmt::format("{} {}", error.message(), during)};
}

// Seconds; the form with a date is not read.
std::optional<double> retry_after(const Parser& parser) {
  const beast::string_view value = parser.get()[http::field::retry_after];
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  if (error != std::errc() || end != value.data() + value.size() || seconds < 0) return std::nullopt;
  return static_cast<double>(seconds);
}

// What this project's server says. A stream's comes after its body, when it is known.
std::optional<double> cost_usd(const Parser& parser) {
  const beast::string_view value = parser.get()["x-fathom-cost-usd"];
  double usd = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), usd);
  if (error != std::errc() || end != value.data() + value.size() || !std::isfinite(usd) || usd < 0) return std::nullopt;
  return usd;
}

// The answer as far as it comes, into `answer`. True: the connection can be kept.
template <typename Stream>
asio::awaitable<bool> exchange(Stream& stream, beast::flat_buffer& buffer, const Outgoing& message,
                               Clock::time_point deadline, const HttpClient::Sink& sink, HttpAnswer& answer) {
  beast::get_lowest_layer(stream).expires_at(deadline);
  // Any other error shows when reading: a server that refuses a request before it has read it all has answered all the same.
  if (const auto [error, bytes] = co_await http::async_write(stream, message, kResult);
      error == beast::error::timeout) {
    answer.failure = failure_of(error, "while the request was sent");
    co_return false;
  }
  Parser parser;
  parser.body_limit(boost::none);  // streams are as long as they are; nothing of them is kept here
  // Beast's own reading would hold back a chunk until the next one begins: it waits for more once it has seen the line end
  // after the chunk. So the socket is read here, and the parser is given what there is.
  parser.eager(true);
  bool headed = false, wanted = true;
  Clock::time_point now = Clock::now();
  error_code error;
  while (true) {
    while (!error && !parser.is_done() && buffer.size() > 0) {
      buffer.consume(parser.put(buffer.data(), error));
      if (error == http::error::need_more) {
        error = {};
        break;
      }
    }
    if (parser.is_header_done() && !std::exchange(headed, true)) {
      answer.status = static_cast<int>(parser.get().result_int());
      answer.content_type = std::string(parser.get()[http::field::content_type]);
      answer.server = std::string(parser.get()[http::field::server]);
      answer.retry_after_s = retry_after(parser);
    }
    std::string& body = parser.get().body();
    if (!body.empty() && wanted) {
      if (sink && answer.status == 200) {
        wanted = sink(body, now);
        if (!wanted) beast::get_lowest_layer(stream).expires_at(std::min(deadline, Clock::now() + kEndTime));
      } else {
        answer.body.append(body, 0, HttpAnswer::kBodyBytes - answer.body.size());
      }
    }
    body.clear();
    if (error) {
      answer.failure = failure_of(error, headed ? "within the answer" : "before the answer's header");
      co_return false;
    }
    if (parser.is_done()) break;

    const size_t room = beast::read_size(buffer, kReadBytes);
    if (room == 0) {
      error = http::error::buffer_overflow;
      continue;
    }
    const auto [failed, bytes] = co_await stream.async_read_some(buffer.prepare(room), kResult);
    now = Clock::now();
    buffer.commit(bytes);
    error = failed;
    // A body without a length ends so.
    if (error == asio::error::eof && parser.got_some()) {
      error = {};
      parser.put_eof(error);
    }
  }
  answer.cost_usd = cost_usd(parser);
  co_return parser.get().keep_alive();
}

}  // namespace

class HttpClient::Connection {
 public:
  Connection(asio::io_context& io, asio::ssl::context* tls) {
    if (tls)
      tls_.emplace(io, *tls);
    else
      plain_.emplace(io);
  }

  beast::tcp_stream& tcp() { return tls_ ? beast::get_lowest_layer(*tls_) : *plain_; }
  beast::ssl_stream<beast::tcp_stream>* tls() { return tls_ ? &*tls_ : nullptr; }

  asio::awaitable<bool> run(const Outgoing& message, Clock::time_point deadline, const Sink& sink, HttpAnswer& answer) {
    if (tls_) return exchange(*tls_, buffer_, message, deadline, sink, answer);
    return exchange(*plain_, buffer_, message, deadline, sink, answer);
  }

 private:
  std::optional<beast::tcp_stream> plain_;
  std::optional<beast::ssl_stream<beast::tcp_stream>> tls_;
  beast::flat_buffer buffer_{size_t{1} << 20};
};

HttpClient::HttpClient(asio::io_context& io, const ServerUrl& server, const std::string& api_key)
    : io_(io), server_(server), api_key_(api_key) {}

HttpClient::~HttpClient() = default;

Result<std::unique_ptr<HttpClient>> HttpClient::create(asio::io_context& io, const ServerUrl& server,
                                                       const std::string& api_key, bool insecure) {
  std::unique_ptr<HttpClient> client(new HttpClient(io, server, api_key));
  if (!server.tls) return client;
  client->tls_.emplace(asio::ssl::context::tls_client);
  client->verify_host_ = !insecure;
  error_code error;
  client->tls_->set_verify_mode(insecure ? asio::ssl::verify_none : asio::ssl::verify_peer, error);
  if (!error && !insecure) client->tls_->set_default_verify_paths(error);
  if (error) return fail("TLS: cannot load the system's certificates: {}", error.message());
  return client;
}

asio::awaitable<Status> HttpClient::resolve() {
  asio::ip::tcp::resolver resolver(io_);
  auto [error, endpoints] = co_await resolver.async_resolve(server_.host, server_.port, kResult);
  if (error) co_return fail("{}: the host cannot be looked up: {}", server_.authority, error.message());
  endpoints_ = std::move(endpoints);
  co_return Status();
}

asio::awaitable<HttpAnswer> HttpClient::connect(Connection& connection, Clock::time_point deadline) {
  const auto no_connection = [&](const error_code& error, std::string_view what) {
    const std::string why = error == beast::error::timeout ? "no answer in time" : error.message();
    HttpAnswer answer;
    answer.failure = {FailureKind::kConnect, fmt::format("{}: {}: {}", server_.authority, what, why)};
    return answer;
  };
  const Clock::time_point start = Clock::now();
  ++connections_;
  beast::tcp_stream& tcp = connection.tcp();
  tcp.expires_at(std::min(deadline, start + kConnectTime));
  if (const auto [error, endpoint] = co_await tcp.async_connect(endpoints_, kResult); error)
    co_return no_connection(error, "cannot connect");
  error_code ignored;  // only slower without
  tcp.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  if (auto* tls = connection.tls()) {
    asio::ip::make_address(server_.host, ignored);
    if (ignored) SSL_set_tlsext_host_name(tls->native_handle(), server_.host.c_str());  // addresses are no names
    if (verify_host_) tls->set_verify_callback(asio::ssl::host_name_verification(server_.host));
    if (const auto [error] = co_await tls->async_handshake(asio::ssl::stream_base::client, kResult); error)
      co_return no_connection(error, "TLS");
  }
  HttpAnswer answer;
  answer.connect_seconds = seconds_since(start);
  co_return answer;
}

asio::awaitable<HttpAnswer> HttpClient::send(const HttpRequest& request, Clock::time_point deadline, Sink sink) {
  Outgoing message{request.method, request.target, 11};
  message.set(http::field::host, server_.authority);
  message.set(http::field::user_agent, "fathom-bench");
  message.set(http::field::accept, sink ? "text/event-stream" : "application/json");
  if (!api_key_.empty()) message.set(http::field::authorization, "Bearer " + api_key_);
  if (!request.body.empty()) {
    message.set(http::field::content_type, "application/json");
    message.body() = request.body;
  }
  message.prepare_payload();

  while (true) {
    std::unique_ptr<Connection> connection;
    HttpAnswer answer;
    const bool kept = !idle_.empty();
    if (kept) {
      connection = std::move(idle_.back());
      idle_.pop_back();
    } else {
      connection = std::make_unique<Connection>(io_, tls_ ? &*tls_ : nullptr);
      answer = co_await connect(*connection, deadline);
      if (answer.failure) co_return answer;
    }
    const bool keep = co_await connection->run(message, deadline, sink, answer);
    if (kept && answer.status == 0 && answer.failure && answer.failure->kind == FailureKind::kBrokenStream) {
      ++stale_;
      continue;
    }
    if (keep) idle_.push_back(std::move(connection));
    co_return answer;
  }
}

}  // namespace fathom::load
