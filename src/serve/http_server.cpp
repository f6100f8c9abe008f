#include "serve/http_server.h"

#include <poll.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <set>
#include <type_traits>

#include "base/check.h"
#include "net/await.h"

namespace fathom {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

namespace {

// Completes with (error_code, …) instead of throwing.
constexpr size_t kReadBytes = 16384;

// Of what a client goes on sending after it was refused, so that it can read why.
constexpr size_t kLingerBytes = size_t{1} << 20;
constexpr std::chrono::seconds kLinger{2};

bool says(std::string_view value, std::string_view expected) { return beast::iequals(value, expected); }

unsigned status_of(const beast::error_code& error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) return 431;
  if (error == http::error::body_limit) return 413;
  return 400;
}

std::string message_of(unsigned status, const beast::error_code& error, const HttpLimits& limits) {
  switch (status) {
    case 431:
      return fmt::format("the header, a line before a chunk or the trailer is longer than {} bytes",
                         limits.header_bytes);
    case 413:
      return fmt::format("the body is longer than {} bytes", limits.body_bytes);
    default:
      return fmt::format("this is no HTTP request: {}", error.message());
  }
}

// What one server might read in one way and the next in another, so that a request could be hidden in a body; empty: nothing.
// Lengths the parser has checked, but it takes an encoding that it does not know for no body.
std::string ambiguity(const HttpHeader& header) {
  if (const auto encoding = header.find(http::field::transfer_encoding); encoding != header.end()) {
    if (header.version() < 11) return "transfer-encoding: HTTP/1.0 has none";
    if (!says({encoding->value().data(), encoding->value().size()}, "chunked"))
      return "transfer-encoding: expected chunked, the only one that this server takes";
  }
  const size_t hosts = header.count(http::field::host);
  if (hosts > 1 || (hosts == 0 && header.version() >= 11)) return fmt::format("host: found {}, expected one", hosts);
  return {};
}

}  // namespace

std::string_view path_of(const HttpHeader& header) {
  const std::string_view target(header.target().data(), header.target().size());
  return target.substr(0, target.find_first_of("?#"));
}

HttpAnswer json_answer(unsigned status, std::string body, HttpFields fields) {
  return {.status = status, .body = std::move(body), .fields = std::move(fields)};
}

// Shared by the listener and its connections.
struct HttpServer::State {
  State(asio::io_context& its_network, const HttpServerSettings& its_settings, HttpHandler& its_handler)
      : settings(its_settings), handler(its_handler), acceptor(its_network) {}

  const HttpServerSettings settings;
  HttpHandler& handler;
  tcp::acceptor acceptor;
  std::optional<asio::ssl::context> tls;
  bool draining = false;
  std::set<tcp::socket*> idle;  // connections between two requests
  int64_t connections = 0;
};

namespace {

// One connection, over TCP or TLS.
template <typename Stream, typename State>
class Connection final : public HttpExchange {
 public:
  Connection(Stream stream, std::shared_ptr<State> state)
      : stream_(std::move(stream)),
        state_(std::move(state)),
        // Beast limits headers, but neither the lines before chunks nor trailers.
        buffer_(static_cast<size_t>(limits().header_bytes) + kReadBytes) {
    ++state_->connections;
    beast::error_code ignored;
    peer = socket().remote_endpoint(ignored).address().to_string();
  }
  ~Connection() override { --state_->connections; }

  asio::awaitable<void> run() {
    if constexpr (kTls) {
      tcp().expires_after(limits().header);
      const auto [error] = co_await stream_.async_handshake(asio::ssl::stream_base::server, kResult);
      if (error) co_return;
    }
    // Not `while (co_await …) {}`: GCC 12 runs off its end.
    for (bool more = true; more;) more = co_await answer_next();
    co_await close();
  }

  bool gone() const override {
    // No read: what a client sends ahead stays where it is. Closing only its sending side counts as leaving too.
    pollfd p{const_cast<Connection*>(this)->socket().native_handle(), POLLRDHUP, 0};
    return failed_ || (::poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)));
  }

  asio::awaitable<bool> send(HttpAnswer&& answer) override {
    http::response<http::string_body> response = head_of<http::string_body>(answer);
    begin_write();
    if (request.method() == http::verb::head) {
      response.content_length(answer.body.size());
      http::response_serializer<http::string_body> serializer(response);
      const auto [error, bytes] = co_await http::async_write_header(stream_, serializer, kResult);
      co_return answered_ = written(error);
    }
    response.body() = std::move(answer.body);
    response.prepare_payload();
    http::response_serializer<http::string_body> serializer(response);
    while (!failed_ && !serializer.is_done()) {
      begin_write();
      const auto [error, bytes] = co_await http::async_write_some(stream_, serializer, kResult);
      written(error);
    }
    co_return answered_ = !failed_;
  }

  asio::awaitable<bool> begin(HttpAnswer&& head) override {
    http::response<http::empty_body> response = head_of<http::empty_body>(head);
    chunked_ = request.version() >= 11;
    if (chunked_)
      response.chunked(true);
    else
      close_ = true, response.keep_alive(false);
    http::response_serializer<http::empty_body> serializer(response);
    begin_write();
    const auto [error, bytes] = co_await http::async_write_header(stream_, serializer, kResult);
    co_return written(error);
  }

  asio::awaitable<bool> write(std::string&& piece) override {
    if (piece.empty() || request.method() == http::verb::head) co_return !failed_;
    const auto whole = asio::buffer(std::as_const(piece));
    if (!chunked_) co_return co_await write_all(whole);
    const auto chunk = http::make_chunk(whole);
    co_return co_await write_all(chunk);
  }

  asio::awaitable<bool> end(HttpFields&& trailer) override {
    if (!chunked_ || request.method() == http::verb::head) co_return answered_ = !failed_;
    http::fields last;
    for (const auto& [name, value] : trailer) last.set(name, value);
    const auto chunk = http::make_chunk_last(last);
    co_return answered_ = co_await write_all(chunk);
  }

 private:
  static constexpr bool kTls = !std::is_same_v<Stream, beast::tcp_stream>;

  beast::tcp_stream& tcp() { return beast::get_lowest_layer(stream_); }
  tcp::socket& socket() { return tcp().socket(); }
  const HttpLimits& limits() const { return state_->settings.limits; }

  template <typename Body>
  http::response<Body> head_of(const HttpAnswer& answer) {
    close_ = close_ || answer.close || state_->draining;
    status = answer.status;
    http::response<Body> response;
    response.version(request.version() >= 11 ? 11 : 10);
    response.result(answer.status);
    response.keep_alive(!close_);
    if (!answer.type.empty()) response.set(http::field::content_type, answer.type);
    for (const HttpFields* list : {static_cast<const HttpFields*>(&fields), &answer.fields})
      for (const auto& [name, value] : *list) response.insert(name, value);
    return response;
  }

  // Around each write: the time that it may take, and whether it went well.
  void begin_write() { tcp().expires_after(limits().write); }
  bool written(beast::error_code error) {
    tcp().expires_never();
    failed_ = failed_ || error;
    return !failed_;
  }
  // Each part that the client takes gives it more time.
  template <typename Buffers>
  asio::awaitable<bool> write_all(const Buffers& buffers) {
    beast::buffers_suffix<Buffers> rest(buffers);
    while (!failed_ && beast::buffer_bytes(rest) > 0) {
      begin_write();
      const auto [error, bytes] = co_await stream_.async_write_some(rest, kResult);
      written(error);
      rest.consume(bytes);
    }
    co_return !failed_;
  }

  asio::awaitable<bool> refuse(unsigned why, const std::string& message) {
    HttpAnswer answer = state_->handler.refusal(why, message);
    answer.close = true;
    co_await send(std::move(answer));
    lingers_ = true;
    co_return false;
  }

  // Until the first byte of a request. False: there is none.
  asio::awaitable<bool> wait_for_request() {
    if (buffer_.size() > 0) co_return true;
    if (state_->draining) co_return false;
    state_->idle.insert(&socket());
    tcp().expires_after(limits().idle);
    const auto [error, bytes] = co_await stream_.async_read_some(buffer_.prepare(kReadBytes), kResult);
    state_->idle.erase(&socket());
    buffer_.commit(bytes);
    co_return !error;
  }

  // False: the connection is to be closed.
  asio::awaitable<bool> answer_next() {
    request = {};
    fields.clear();
    pass.reset();
    status = 0;
    answered_ = close_ = chunked_ = closes = false;
    if (!co_await wait_for_request()) co_return false;

    http::request_parser<http::string_body> parser;
    parser.header_limit(static_cast<uint32_t>(limits().header_bytes));
    parser.body_limit(static_cast<uint64_t>(limits().body_bytes));
    tcp().expires_after(limits().header);
    {
      const auto [error, bytes] = co_await http::async_read_header(stream_, buffer_, parser, kResult);
      if (error == http::error::end_of_stream) co_return false;
      if (error) co_return co_await failed_to_read(error);
    }
    if (const std::string problem = ambiguity(parser.get().base()); !problem.empty())
      co_return co_await refuse(400, problem);
    if (auto refused = state_->handler.admit(*this, parser.get().base())) {
      request.base() = parser.get().base();
      if (!parser.is_done()) refused->close = lingers_ = true;  // its body stays unread
      const bool sent = co_await send(*std::move(refused));
      co_return sent && !close_ && parser.keep_alive();
    }
    if (says(parser.get()[http::field::expect], "100-continue")) {
      http::response<http::empty_body> go_on(http::status::continue_, 11);
      begin_write();
      const auto [error, bytes] = co_await http::async_write(stream_, go_on, kResult);
      if (!written(error)) co_return false;
    }
    HttpHeader header = parser.get().base();
    tcp().expires_after(limits().body);
    {
      const auto [error, bytes] = co_await http::async_read(stream_, buffer_, parser, kResult);
      if (error) co_return co_await failed_to_read(error);
    }
    tcp().expires_never();
    request = parser.release();
    request.base() = std::move(header);  // without the trailer's fields: they were not admitted
    if (!request.keep_alive()) close_ = true;
    co_await state_->handler.handle(*this);
    co_return answered_ && !failed_ && !close_ && !closes;
  }

  asio::awaitable<bool> failed_to_read(beast::error_code error) {
    // A connection that broke has no one to answer; one that timed out was closed by that.
    const bool malformed = error.category() == http::make_error_code(http::error::bad_target).category();
    if (!malformed || error == http::error::partial_message) co_return false;
    request.version(11);
    const unsigned why = status_of(error);
    co_return co_await refuse(why, message_of(why, error, limits()));
  }

  asio::awaitable<void> close() {
    beast::error_code ignored;
    if (!socket().is_open()) co_return;
    if constexpr (kTls) {
      tcp().expires_after(kLinger);
      co_await stream_.async_shutdown(kResult);
    }
    socket().shutdown(tcp::socket::shutdown_send, ignored);
    if (!lingers_) co_return;
    // A socket that is closed with data unread is reset, and the client may lose the answer that tells it why.
    tcp().expires_after(kLinger);
    for (size_t bytes = 0; bytes < kLingerBytes;) {
      buffer_.clear();
      const auto [error, more] = co_await tcp().async_read_some(buffer_.prepare(kReadBytes), kResult);
      if (error) break;
      bytes += more;
    }
  }

  Stream stream_;
  std::shared_ptr<State> state_;
  beast::flat_buffer buffer_;
  bool answered_ = false;  // the request at hand, wholly
  bool close_ = false;     // the connection after it
  bool chunked_ = false;
  bool lingers_ = false;
  bool failed_ = false;  // the client cannot be reached any more
};

template <typename Stream, typename State>
void serve_connection(const asio::any_io_executor& executor, Stream stream, const std::shared_ptr<State>& state) {
  const auto connection = std::make_shared<Connection<Stream, State>>(std::move(stream), state);
  asio::co_spawn(
      executor, [connection]() -> asio::awaitable<void> { co_await connection->run(); }, asio::detached);
}

// Says why there is no room for the connection, and closes it.
template <typename State>
void turn_away(const asio::any_io_executor& executor, tcp::socket socket, State& state) {
  struct Last {
    beast::tcp_stream stream;
    http::response<http::string_body> response;
  };
  HttpAnswer answer =
      state.handler.refusal(503, fmt::format("{} connections are open, as many as may be", state.connections));
  const auto last = std::make_shared<Last>(Last{beast::tcp_stream(std::move(socket)), {}});
  last->response = {static_cast<http::status>(answer.status), 11, std::move(answer.body)};
  last->response.set(http::field::content_type, answer.type);
  last->response.keep_alive(false);
  last->response.prepare_payload();
  last->stream.expires_after(kLinger);
  asio::co_spawn(
      executor,
      [last]() -> asio::awaitable<void> { co_await http::async_write(last->stream, last->response, kResult); },
      asio::detached);
}

template <typename State>
asio::awaitable<void> accept_connections(const std::shared_ptr<State>& state) {
  const auto executor = co_await asio::this_coro::executor;
  asio::steady_timer pause(executor);
  while (state->acceptor.is_open()) {
    auto [error, socket] = co_await state->acceptor.async_accept(kResult);
    if (error == asio::error::operation_aborted) co_return;
    if (error) {  // mostly: no descriptors left. Some will be closed.
      pause.expires_after(std::chrono::milliseconds(50));
      co_await pause.async_wait(kResult);
      continue;
    }
    beast::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    if (state->connections >= state->settings.limits.connections)
      turn_away(executor, std::move(socket), *state);
    else if (state->tls)
      serve_connection(executor, beast::ssl_stream<beast::tcp_stream>(std::move(socket), *state->tls), state);
    else
      serve_connection(executor, beast::tcp_stream(std::move(socket)), state);
  }
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::listen(asio::io_context& network, const HttpServerSettings& settings,
                                                       HttpHandler& handler) {
  auto state = std::make_shared<State>(network, settings, handler);
  beast::error_code error;
  if (!settings.certificate.empty() || !settings.key.empty()) {
    state->tls.emplace(asio::ssl::context::tls_server);
    state->tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                            asio::ssl::context::no_tlsv1_1);
    state->tls->use_certificate_chain_file(settings.certificate.string(), error);
    if (error)
      return fail("{}: is no PEM certificate that can be used: {}", settings.certificate.string(), error.message());
    state->tls->use_private_key_file(settings.key.string(), asio::ssl::context::pem, error);
    if (error) return fail("{}: is no PEM key that fits the certificate: {}", settings.key.string(), error.message());
  }
  const auto address = asio::ip::make_address(settings.address, error);
  if (error) return fail("address: found '{}', expected an IPv4 or IPv6 address such as 127.0.0.1", settings.address);
  const tcp::endpoint endpoint(address, settings.port);
  const std::string where = fmt::format("{}:{}", settings.address, settings.port);
  state->acceptor.open(endpoint.protocol(), error);
  if (!error) state->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) state->acceptor.bind(endpoint, error);
  if (!error) state->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error == asio::error::address_in_use)
    return fail("{}: another program listens there already: stop it, or choose another --port", where);
  if (error) return fail("{}: cannot be listened on: {}", where, error.message());
  asio::co_spawn(
      network, [state]() -> asio::awaitable<void> { co_await accept_connections(state); }, asio::detached);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::HttpServer(std::shared_ptr<State> state) : state_(std::move(state)) {}
HttpServer::~HttpServer() { drain(); }
uint16_t HttpServer::port() const { return state_->acceptor.local_endpoint().port(); }
int64_t HttpServer::connections() const { return state_->connections; }

void HttpServer::drain() {
  beast::error_code ignored;
  state_->draining = true;
  state_->acceptor.close(ignored);
  for (tcp::socket* socket : state_->idle) socket->cancel(ignored);
}

}  // namespace fathom
