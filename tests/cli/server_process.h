// `fathom serve` as a process of its own, looked at from outside.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "serve/raw_client.h"
#include "text/json.h"

namespace fathom::test {

// Throws where the server does not become ready; tests that are to see one refuse use run_fathom.
class ServerProcess {
 public:
  // After `fathom serve --port 0`.
  explicit ServerProcess(const std::vector<std::string>& arguments);
  ~ServerProcess();  // kills what has not ended
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  uint16_t port() const { return port_; }
  pid_t pid() const { return pid_; }
  // The end of what it said on stderr.
  std::string said() const;
  void send_signal(int signal) const;
  // Waits for its end: the exit code; −n: signal n ended it. Throws where it does not come within the time.
  int end(std::chrono::seconds most = std::chrono::seconds(120));

  // Of the system, in KiB: all pages in memory, mapped weights included.
  int64_t resident_kib() const;
  // As its /metrics say, of all labels together; 0: it has none of that name.
  double metric(const std::string& name) const;

 private:
  void read_stderr(int fd);

  pid_t pid_ = -1;
  uint16_t port_ = 0;
  mutable std::mutex mutex_;  // guards the text
  std::string said_;
  bool closed_ = false;  // stderr
  std::thread reader_;
};

// The option that gives a server this configuration, which is written to `folder`.
std::vector<std::string> with_config(const std::filesystem::path& folder, const Json& config);

// A request with Host and, where it has a body, its length.
std::string http_request(const std::string& method, const std::string& path, const std::string& body = "",
                         const std::string& fields = "");
inline std::string http_post(const std::string& path, const Json& body, const std::string& fields = "") {
  return http_request("POST", path, body.dump(), fields);
}
// Over a connection of its own.
RawAnswer ask(uint16_t port, const std::string& request, std::chrono::milliseconds patience = kPatience);

// Waits until it is true; false: it is not within two minutes.
template <typename Condition>
bool becomes(const Condition& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace fathom::test
