#include "serve/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <future>
#include <thread>

#include "serve/raw_client.h"
#include "support/certificate.h"

namespace fathom {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using test::make_certificate;
using test::RawAnswer;
using test::RawClient;
using testing::HasSubstr;

// Says back what it was asked, and does a few things that take long.
class SmallHandler final : public HttpHandler {
 public:
  std::atomic<int> handled = 0, left = 0;

  std::optional<HttpAnswer> admit(HttpExchange&, const HttpHeader& header) override {
    if (path_of(header) == "/refused") return json_answer(403, "refused");
    return std::nullopt;
  }
  HttpAnswer refusal(unsigned status, const std::string& message) override { return json_answer(status, message); }

  asio::awaitable<void> handle(HttpExchange& exchange) override {
    ++handled;
    const std::string path(path_of(exchange.request));
    if (path == "/pieces") {
      co_await pieces(exchange);
    } else if (path == "/wait") {
      co_await wait(exchange);
    } else if (path == "/endless") {
      co_await endless(exchange);
    } else if (path == "/silent") {
      co_return;
    } else {
      std::string body = path == "/large" ? std::string(kLarge, 'x') : said(exchange.request);
      HttpAnswer answer = json_answer(200, std::move(body));
      co_await exchange.send(std::move(answer));
    }
  }

  static constexpr size_t kLarge = size_t{24} << 20;

 private:
  static std::string said(const HttpRequest& request) {
    const auto method = request.method_string();
    const auto trailer = request["x-trailer"];
    return std::string(method.data(), method.size()) + " " + std::string(path_of(request)) + " " + request.body() +
           std::string(trailer.data(), trailer.size());
  }
  asio::awaitable<void> pieces(HttpExchange& exchange) {
    HttpAnswer head;
    head.type = "text/plain";
    if (!co_await exchange.begin(std::move(head))) co_return;
    for (const char* text : {"one ", "", "two"}) {
      std::string piece = text;
      if (!co_await exchange.write(std::move(piece))) co_return;
    }
    HttpFields trailer;
    trailer.emplace_back("x-cost", "3");
    co_await exchange.end(std::move(trailer));
  }
  asio::awaitable<void> wait(HttpExchange& exchange) {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    for (int i = 0; i < 100 && !exchange.gone(); ++i) {
      timer.expires_after(10ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    if (exchange.gone()) ++left;
    HttpAnswer answer = json_answer(200, "waited");
    co_await exchange.send(std::move(answer));
  }
  asio::awaitable<void> endless(HttpExchange& exchange) {
    HttpAnswer head;
    bool more = co_await exchange.begin(std::move(head));
    while (more) {
      std::string piece(65536, 'x');
      more = co_await exchange.write(std::move(piece));
    }
    ++left;
  }
};

class HttpServerTest : public testing::Test {
 protected:
  void start(HttpServerSettings settings = {}) {
    auto server = HttpServer::listen(network_, settings, handler_);
    ASSERT_TRUE(server) << server.error().message;
    server_ = *std::move(server);
    port_ = server_->port();
    thread_ = std::thread([this] { network_.run(); });
  }
  void start(const std::function<void(HttpLimits&)>& edit) {
    HttpServerSettings settings;
    edit(settings.limits);
    start(settings);
  }
  ~HttpServerTest() override {
    network_.stop();
    if (thread_.joinable()) thread_.join();
  }
  template <typename Function>
  auto on_network(const Function& function) {
    std::packaged_task<std::invoke_result_t<Function>()> task(function);
    auto result = task.get_future();
    asio::post(network_, [&task] { task(); });
    return result.get();
  }
  int64_t connections() {
    return on_network([this] { return server_->connections(); });
  }
  // Within some seconds.
  static bool becomes(const std::function<bool()>& true_at_last) {
    for (int i = 0; i < 500; ++i) {
      if (true_at_last()) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }
  // What a request of these very bytes is answered; 0: nothing.
  unsigned status_of(std::string_view request) {
    RawClient client(port_);
    return client.ask(request).status;
  }

  asio::io_context network_{1};
  asio::executor_work_guard<asio::io_context::executor_type> goes_on_{network_.get_executor()};
  SmallHandler handler_;
  std::unique_ptr<HttpServer> server_;
  uint16_t port_ = 0;
  std::thread thread_;
};

TEST_F(HttpServerTest, KeepsAConnection) {
  start();
  RawClient client(port_);
  for (int i = 0; i < 3; ++i) {
    const RawAnswer answer = client.ask("POST /a?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    EXPECT_EQ(answer.status, 200u);
    EXPECT_EQ(answer.body, "POST /a hi");
    EXPECT_TRUE(answer.keep_alive);
  }
  EXPECT_EQ(connections(), 1);
  EXPECT_EQ(client.ask("GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").body, "GET /b ");
  EXPECT_LT(client.closed_after(), 1s);
  EXPECT_TRUE(becomes([&] { return connections() == 0; }));
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  start();
  RawClient client(port_);
  client.send(
      "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
      "GET /pieces HTTP/1.1\r\nHost: h\r\n\r\nGET /4 HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(client.read().body, "GET /1 ");
  EXPECT_EQ(client.read().body, "POST /2 abc");
  EXPECT_EQ(client.read().body, "one two");
  EXPECT_EQ(client.read().body, "GET /4 ");
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  start();
  RawClient client(port_);
  client.send("HEAD /abc HTTP/1.1\r\nHost: h\r\n\r\n");
  const RawAnswer answer = client.read(/*head=*/true);
  EXPECT_EQ(answer.status, 200u);
  EXPECT_EQ(answer.field("content-length"), "10");  // "HEAD /abc "
  EXPECT_EQ(client.ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").body, "GET /next ");
  client.send("HEAD /pieces HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(client.read(/*head=*/true).status, 200u);
  EXPECT_EQ(client.ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").body, "GET /next ") << "no pieces of a body before it";
}

TEST_F(HttpServerTest, AnswersInPiecesWithATrailer) {
  start();
  RawClient client(port_);
  const RawAnswer answer = client.ask("GET /pieces HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(answer.body, "one two");
  EXPECT_EQ(answer.field("transfer-encoding"), "chunked");
  EXPECT_EQ(answer.field("x-cost"), "3");
}

TEST_F(HttpServerTest, Http10ClosesAndHasNoChunks) {
  start();
  {
    RawClient client(port_);
    EXPECT_EQ(client.ask("GET /a HTTP/1.0\r\n\r\n").body, "GET /a ");
    EXPECT_LT(client.closed_after(), 1s);
  }
  RawClient client(port_);
  const RawAnswer answer = client.ask("GET /pieces HTTP/1.0\r\n\r\n");
  EXPECT_EQ(answer.body, "one two");
  EXPECT_EQ(answer.field("transfer-encoding"), "");
}

TEST_F(HttpServerTest, TakesChunkedBodies) {
  start();
  RawClient client(port_);
  client.send("POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n");
  std::this_thread::sleep_for(20ms);
  client.send("2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n");
  EXPECT_EQ(client.read().body, "POST /c abcde") << "the trailer is no part of the header";
  EXPECT_EQ(client.ask("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").body, "GET /next ");
}

TEST_F(HttpServerTest, SaysGoOnBeforeABody) {
  start();
  RawClient client(port_);
  client.send("POST /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_THAT(client.read_until("\r\n\r\n"), testing::StartsWith("HTTP/1.1 100"));
  EXPECT_EQ(client.ask("hi").body, "POST /e hi");
  // What is refused is so before its body was sent.
  const RawAnswer refused =
      client.ask("POST /refused HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(refused.status, 403u);
  EXPECT_FALSE(refused.keep_alive) << "what comes next could be the body or a request";
}

TEST_F(HttpServerTest, RefusesLongHeadersAndBodies) {
  start([](HttpLimits& limits) { limits.header_bytes = 2000, limits.body_bytes = 1000; });
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(3000, 'x') + "\r\n\r\n"), 431u);
  EXPECT_EQ(status_of("GET /" + std::string(3000, 'x') + " HTTP/1.1\r\nHost: h\r\n\r\n"), 431u);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(100000, 'x')), 431u) << "that never ends";
  const std::string post = "POST / HTTP/1.1\r\nHost: h\r\n";
  EXPECT_EQ(status_of(post + "Content-Length: 1001\r\n\r\n"), 413u) << "before it is sent";
  EXPECT_EQ(status_of(post + "Content-Length: 1001\r\n\r\n" + std::string(1001, 'x')), 413u);
  EXPECT_EQ(status_of(post + "Content-Length: 1000\r\n\r\n" + std::string(1000, 'x')), 200u);
  std::string chunks = post + "Transfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 11; ++i) chunks += "64\r\n" + std::string(100, 'x') + "\r\n";
  EXPECT_EQ(status_of(chunks), 413u);
  EXPECT_EQ(handler_.handled, 1);
}

TEST_F(HttpServerTest, RefusesWhatMayBeReadInTwoWays) {
  start();
  const std::string post = "POST /x HTTP/1.1\r\nHost: h\r\n", smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
  const std::string chunked = "Transfer-Encoding: chunked\r\n", none = "\r\n0\r\n\r\n";
  for (const std::string& request : std::vector<std::string>{
           post + "Content-Length: 4\r\n" + chunked + none,
           post + chunked + "Content-Length: 4\r\n" + none,
           post + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
           post + "Content-Length: 4, 5\r\n\r\nabcde",
           post + "Content-Length: 4\r\n 5\r\n\r\nabcde",
           post + "Transfer-Encoding: chunked,\r\n identity\r\n\r\n" + smuggled,
           post + "Content-Length: +4\r\n\r\nabcd",
           post + "Content-Length: -1\r\n\r\n",
           post + "Content-Length: 0x4\r\n\r\nabcd",
           post + "Content-Length: 99999999999999999999999\r\n\r\n",
           post + "Content-Length:\r\n\r\n",
           post + "Content-Length : 4\r\n\r\nabcd",
           post + chunked + chunked + none,
           post + "Transfer-Encoding: xchunked\r\n\r\n" + smuggled,
           post + "Transfer-Encoding: identity\r\n\r\n" + smuggled,
           post + "Transfer-Encoding: chunked, identity\r\n\r\n" + smuggled,
           post + "Transfer-Encoding : chunked\r\n" + none,
           "POST /x HTTP/1.1\r\n" + chunked + "Host: a\r\nHost: b\r\n" + none,
           "POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n",  // no host
           "POST /x HTTP/1.0\r\n" + chunked + none,
       }) {
    RawClient client(port_);
    const RawAnswer answer = client.ask(request);
    EXPECT_EQ(answer.status, 400u) << request;
    EXPECT_FALSE(answer.keep_alive) << request;
    EXPECT_LT(client.closed_after(3s), 3s) << request;
  }
  EXPECT_EQ(handler_.handled, 0);
}

TEST_F(HttpServerTest, RefusesWhatIsNoHttp) {
  start();
  using namespace std::string_literals;
  const std::string get = "GET / HTTP/1.1\r\nHost: h\r\n",
                    chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const std::string& request : std::vector<std::string>{
           get + "bad name: 1\r\n\r\n",
           get + "bad(name): 1\r\n\r\n",
           get + ": nameless\r\n\r\n",
           get + "no colon\r\n\r\n",
           get + "X: a\0b\r\n\r\n"s,
           get + "X\0: a\r\n\r\n"s,
           "GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n"s,
           "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"s,
           "GET / HTTP/1.1\nHost: h\n\n"s,
           get + "X: bare\n\r\n",
           "GET / HTTP/3.0\r\nHost: h\r\n\r\n"s,
           "GET /\r\nHost: h\r\n\r\n"s,
           "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n"s,
           "\r\n \r\n\r\n"s,
           chunked + "ffffffffffffffffffff\r\n",
           chunked + "-1\r\n",
           chunked + "zz\r\nabc\r\n0\r\n\r\n",
           chunked + "3\r\nabcdef\r\n0\r\n\r\n",
           chunked + "0x3\r\nabc\r\n0\r\n\r\n",
       }) {
    RawClient client(port_);
    EXPECT_EQ(client.ask(request).status, 400u) << testing::PrintToString(request);
    EXPECT_LT(client.closed_after(3s), 3s) << testing::PrintToString(request);
  }
  EXPECT_EQ(status_of(chunked + "fffffffffffffff\r\n"), 413u) << "a chunk beyond the limit, before it is sent";
  EXPECT_EQ(handler_.handled, 0);
}

// Each goes on until it is refused: what it takes in memory is bounded.
TEST_F(HttpServerTest, WhatBelongsToChunksIsBounded) {
  start();
  const std::string post = "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", more(1 << 16, 'x');
  for (const std::string& begin : {post + "3;ext=", post + "3\r\nabc\r\n0\r\nX: ", post + "0;ext="}) {
    RawClient client(port_);
    client.send(begin);
    size_t sent = 0;
    while (!client.readable(0ms) && sent < (size_t{64} << 20) && client.send(more)) sent += more.size();
    EXPECT_LT(sent, size_t{16} << 20) << begin;
    EXPECT_EQ(client.read().status, 431u) << begin;
    EXPECT_LT(client.closed_after(), 3s) << begin;
  }
  EXPECT_EQ(handler_.handled, 0);
}

TEST_F(HttpServerTest, SurvivesRandomBytes) {
  start([](HttpLimits& limits) { limits.header = 1s; });
  std::string seed = "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
  uint64_t state = 7;
  const auto random = [&state](uint64_t end) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>((state >> 33) % end);
  };
  for (int i = 0; i < 300; ++i) {
    std::string request = seed;
    for (size_t changes = 1 + random(4); changes > 0; --changes)
      request[random(request.size())] = static_cast<char>(random(256));
    request.resize(1 + random(request.size()));
    RawClient client(port_);
    client.send(request);
    client.close();
  }
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), 200u);
  EXPECT_TRUE(becomes([&] { return connections() == 0; }));
}

TEST_F(HttpServerTest, ClosesSlowAndIdleConnections) {
  start([](HttpLimits& limits) { limits.header = 1s, limits.idle = 2s, limits.body = 1s; });
  RawClient slow(port_), idle(port_), body(port_);
  body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc");
  const auto start = std::chrono::steady_clock::now();
  std::thread drip([&slow] {
    slow.send("GET / HTTP/1.1\r\n");
    while (slow.send("X: 1\r\n")) std::this_thread::sleep_for(50ms);
  });
  EXPECT_THAT(body.closed_after(5s), testing::AllOf(testing::Ge(800ms), testing::Le(1800ms)));
  drip.join();
  const auto dripped = std::chrono::steady_clock::now() - start;
  EXPECT_GE(dripped, 900ms);
  EXPECT_LT(dripped, 1900ms) << "each line must not give it more time";
  EXPECT_LT(idle.closed_after(5s), 4s);
  EXPECT_GE(std::chrono::steady_clock::now() - start, 1900ms);
  EXPECT_EQ(handler_.handled, 0);
}

TEST_F(HttpServerTest, TurnsAwayWhatIsTooMany) {
  start([](HttpLimits& limits) { limits.connections = 2; });
  RawClient one(port_);
  auto two = std::make_unique<RawClient>(port_);
  EXPECT_EQ(one.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status, 200u);
  EXPECT_EQ(two->ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status, 200u);
  RawClient three(port_);
  EXPECT_EQ(three.read().status, 503u);
  EXPECT_LT(three.closed_after(), 3s);
  EXPECT_EQ(one.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status, 200u) << "others go on";
  two.reset();
  EXPECT_TRUE(becomes([&] { return status_of("GET / HTTP/1.1\r\nHost: h\r\n\r\n") == 200u; }));
}

TEST_F(HttpServerTest, SeesThatAClientHasLeft) {
  start();
  RawClient client(port_), other(port_);
  client.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_TRUE(becomes([&] { return handler_.handled == 1; }));
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(handler_.left, 0);
  // One that sends its next request meanwhile has not left.
  other.send("GET /pieces HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(other.read().body, "one two") << "while another waits";
  client.close();
  EXPECT_TRUE(becomes([&] { return handler_.left == 1; }));
}

TEST_F(HttpServerTest, GivesUpOnAClientThatTakesNothing) {
  start([](HttpLimits& limits) { limits.write = 1s; });
  RawClient client(port_, 4096);
  const auto start = std::chrono::steady_clock::now();
  client.send("GET /endless HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_TRUE(becomes([&] { return handler_.left == 1; }));
  EXPECT_GE(std::chrono::steady_clock::now() - start, 900ms);
  EXPECT_TRUE(becomes([&] { return connections() == 0; }));
}

// The limit is on standing still, not on the whole.
TEST_F(HttpServerTest, WaitsForAClientThatTakesLittleAtATime) {
  start([](HttpLimits& limits) { limits.write = 1s; });
  RawClient client(port_, 65536);
  client.send("GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  size_t bytes = 0;
  for (std::string some = client.read_until("\r\n\r\n"); !some.empty(); some = client.read_some()) {
    static_assert(SmallHandler::kLarge / 65536 == 384);
    bytes += some.size();
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_GT(bytes, SmallHandler::kLarge);
}

TEST_F(HttpServerTest, ClosesAfterAnAnswerThatWasNotGiven) {
  start();
  RawClient client(port_);
  EXPECT_EQ(client.ask("GET /silent HTTP/1.1\r\nHost: h\r\n\r\n").status, 0u);
}

TEST_F(HttpServerTest, DrainsWhatIsUnderWay) {
  start();
  RawClient idle(port_), busy(port_);
  EXPECT_EQ(idle.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status, 200u);
  busy.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_TRUE(becomes([&] { return handler_.handled == 2; }));
  on_network([this] { server_->drain(); });
  EXPECT_LT(idle.closed_after(), 1s);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), 0u) << "no new ones";
  const RawAnswer answer = busy.read();
  EXPECT_EQ(answer.body, "waited");
  EXPECT_FALSE(answer.keep_alive);
  EXPECT_TRUE(becomes([&] { return connections() == 0; }));
}

TEST_F(HttpServerTest, SpeaksTls) {
  const std::filesystem::path folder = testing::TempDir();
  HttpServerSettings settings;
  settings.certificate = folder / "http_server_test.crt", settings.key = folder / "http_server_test.key";
  settings.limits.header = 1s;
  make_certificate(settings.certificate, settings.key);
  start(settings);

  asio::io_context context;
  asio::ssl::context tls(asio::ssl::context::tls_client);
  tls.load_verify_file(settings.certificate.string());
  tls.set_verify_mode(asio::ssl::verify_peer);
  asio::ssl::stream<asio::ip::tcp::socket> stream(context, tls);
  stream.next_layer().connect({asio::ip::address_v4::loopback(), port_});
  boost::system::error_code error;
  stream.handshake(asio::ssl::stream_base::client, error);
  ASSERT_FALSE(error) << error.message();
  boost::beast::flat_buffer buffer;
  for (const char* path : {"/a", "/pieces", "/b"}) {
    const std::string request = std::string("GET ") + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
    asio::write(stream, asio::buffer(request));
    boost::beast::http::response<boost::beast::http::string_body> response;
    boost::beast::http::read(stream, buffer, response, error);
    ASSERT_FALSE(error) << error.message();
    EXPECT_EQ(response.result_int(), 200u);
    EXPECT_EQ(response.body(), path == std::string("/pieces") ? "one two" : std::string("GET ") + path + " ");
  }
  RawClient plain(port_), silent(port_);
  EXPECT_EQ(plain.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status, 0u) << "in the clear nothing is said";
  EXPECT_LT(silent.closed_after(), 3s) << "a handshake that does not come";
  on_network([this] { server_->drain(); });
  char byte = 0;
  EXPECT_EQ(stream.read_some(asio::buffer(&byte, 1), error), 0u);
  EXPECT_EQ(error, asio::error::eof) << "closed as TLS has it: " << error.message();
}

TEST_F(HttpServerTest, SaysWhyItCannotListen) {
  start();
  HttpServerSettings settings;
  const auto message = [&] {
    const auto server = HttpServer::listen(network_, settings, handler_);
    return server ? std::string("it listens") : server.error().message;
  };
  settings.port = port_;
  EXPECT_THAT(message(), HasSubstr("another program listens there"));
  settings = {.address = "localhost"};
  EXPECT_THAT(message(), HasSubstr("expected an IPv4 or IPv6 address"));
  settings = {.certificate = "/nowhere.crt", .key = "/nowhere.key"};
  EXPECT_THAT(message(), HasSubstr("/nowhere.crt: is no PEM certificate"));
}

}  // namespace
}  // namespace fathom
