// Any bytes on a connection of the whole service, a small model behind it: each input is refused or answered, with a status that
// fits and an error that says why, and the connection ends.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include "serve/http_server.h"
#include "serve/service.h"

namespace {

using namespace fathom;

void require(bool holds, const char* what, std::string_view found) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s, found: %.*s\n", what, static_cast<int>(found.size()), found.data());
  std::abort();
}

// Runs as long as the process.
class Server {
 public:
  Server() {
    ModelSettings model;
    model.name = "sample";
    model.folder = FATHOM_MODELS "/sample";
    model.engine.threads = 1;
    model.engine.context = 256;
    auto service = Service::open(network_, {.models = {model}});
    require(service.has_value(), "the service opens", service ? "" : service.error().message);
    service_ = *std::move(service);
    HttpServerSettings settings;
    settings.limits.header_bytes = 4096, settings.limits.body_bytes = 1 << 16;
    auto server = HttpServer::listen(network_, settings, *service_);
    require(server.has_value(), "the server listens", server ? "" : server.error().message);
    server_ = *std::move(server);
    std::thread([this] { network_.run(); }).detach();
    const Status started = boost::asio::co_spawn(network_, service_->start(), boost::asio::use_future).get();
    require(started.has_value(), "the model is loaded", started ? "" : started.error().message);
  }

  // What the server sends to who sends this and nothing more, until it closes.
  std::string exchange(std::string_view bytes) const {
    const int client = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server_->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    require(::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "the server accepts", "");
    const timeval patience{60, 0};
    ::setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::send(client, bytes.data(), bytes.size(), MSG_NOSIGNAL);  // it may refuse before it has read all
    ::shutdown(client, SHUT_WR);
    std::string answer;
    char block[4096];
    ssize_t n = 0;
    while ((n = ::recv(client, block, sizeof block, 0)) > 0) answer.append(block, static_cast<size_t>(n));
    require(n == 0 || errno == ECONNRESET, "the connection ends", answer);
    ::close(client);
    return answer;
  }

 private:
  boost::asio::io_context network_{1};
  std::unique_ptr<Service> service_;
  std::unique_ptr<HttpServer> server_;
};

constexpr const char* kPaths[] = {
    "/v1/chat/completions",      "/v1/completions", "/v1/responses", "/anthropic/v1/messages",
    "/v1/messages/count_tokens", "/tokenize",       "/detokenize",   "/v1/lens"};

}  // namespace

// byte 0: '0' to '7' for a body of that endpoint; otherwise what follows goes as it is.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Server& server = *new Server();
  if (size < 1) return 0;
  std::string_view sent(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t path = data[0] - size_t{'0'};
  std::string request;
  if (path < std::size(kPaths)) {
    request = fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}", kPaths[path],
                          sent.size(), sent);
    sent = request;
  }
  std::string answer = server.exchange(sent);
  // Told before the answer to a request that waits for it.
  constexpr std::string_view kGoOn = "HTTP/1.1 100 Continue\r\n\r\n";
  if (answer.starts_with(kGoOn)) answer.erase(0, kGoOn.size());
  if (answer.empty()) return 0;  // no whole request, or an answer that its client left
  require(answer.starts_with("HTTP/1."), "an answer is HTTP", answer);
  const std::string_view status = std::string_view(answer).substr(9, 3);
  require(status.starts_with('2') || status == "304" || status.starts_with('4'),
          "a status of a request that was answered or is wrong", answer);
  if (status.starts_with('4') && !sent.starts_with("HEAD")) {
    const size_t body = answer.find("\r\n\r\n");
    require(body != std::string::npos && answer.find("\"message\":\"", body) != std::string::npos, "errors say why",
            answer);
  }
  return 0;
}
