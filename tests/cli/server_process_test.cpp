// The helper that the tests of the running server use, with its own test.
#include "cli/server_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "cli/process.h"

namespace fathom::test {

std::vector<std::string> with_config(const std::filesystem::path& folder, const Json& config) {
  const std::filesystem::path file = folder / "serve.json";
  std::ofstream(file) << config.dump();
  return {"--config", file.string()};
}

ServerProcess::ServerProcess(const std::vector<std::string>& arguments) {
  std::vector<std::string> all{FATHOM_BINARY, "serve", "--port", "0"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& argument : all) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::array<int, 2> err{};
  if (pipe2(err.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  pid_ = fork();
  if (pid_ == 0) {
    dup2(err[1], STDERR_FILENO);
    execv(FATHOM_BINARY, argv.data());
    _exit(127);
  }
  ::close(err[1]);
  reader_ = std::thread([this, fd = err[0]] { read_stderr(fd); });
  const auto ready = [this] {
    const std::lock_guard lock(mutex_);
    const auto line = said_.find("fathom: ready at ");
    if (line == std::string::npos || said_.find('\n', line) == std::string::npos) return closed_;
    port_ = static_cast<uint16_t>(std::stoi(said_.substr(said_.find_last_of(':', said_.find('\n', line)) + 1)));
    return true;
  };
  const bool done = becomes(ready);
  if (done && port_ != 0) return;
  kill(pid_, SIGKILL);
  end();
  throw std::runtime_error("the server did not become ready:\n" + said());
}

ServerProcess::~ServerProcess() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  end();
}

void ServerProcess::read_stderr(int fd) {
  constexpr size_t kKept = 65536;
  std::array<char, 4096> block{};
  for (ssize_t n = 0; (n = ::read(fd, block.data(), block.size())) > 0;) {
    const std::lock_guard lock(mutex_);
    said_.append(block.data(), static_cast<size_t>(n));
    if (said_.size() > 2 * kKept) said_.erase(0, said_.size() - kKept);
  }
  ::close(fd);
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

std::string ServerProcess::said() const {
  const std::lock_guard lock(mutex_);
  return said_;
}

void ServerProcess::send_signal(int signal) const { kill(pid_, signal); }

int ServerProcess::end(std::chrono::seconds most) {
  const auto until = std::chrono::steady_clock::now() + most;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) != pid_) {
    if (std::chrono::steady_clock::now() > until)
      throw std::runtime_error(fmt::format("the server has not ended within {} s", most.count()));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  pid_ = -1;
  reader_.join();
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int64_t ServerProcess::resident_kib() const {
  std::ifstream in(fmt::format("/proc/{}/statm", pid_));
  int64_t all = 0, resident = 0;
  in >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE) / 1024;
}

double ServerProcess::metric(const std::string& name) const {
  std::istringstream text(ask(port_, http_request("GET", "/metrics")).body);
  double sum = 0;
  for (std::string line; std::getline(text, line);)
    if (line.starts_with(name) && (line[name.size()] == ' ' || line[name.size()] == '{'))
      sum += std::stod(line.substr(line.find_last_of(' ') + 1));
  return sum;
}

std::string http_request(const std::string& method, const std::string& path, const std::string& body,
                         const std::string& fields) {
  std::string text = fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\n{}", method, path, fields);
  if (!body.empty()) text += fmt::format("Content-Length: {}\r\n", body.size());
  return text + "\r\n" + body;
}

RawAnswer ask(uint16_t port, const std::string& request, std::chrono::milliseconds patience) {
  RawClient client(port);
  client.send(request);
  return client.read(false, patience);
}

TEST(ServerProcess, IsReadyAndEndsAsItIsTold) {
  ServerProcess server({"--context", "512"});
  EXPECT_EQ(ask(server.port(), http_request("GET", "/health")).status, 200u);
  EXPECT_EQ(server.metric("fathom_build_info"), 1);
  EXPECT_GT(server.resident_kib(), 1000);
  server.send_signal(SIGTERM);
  EXPECT_EQ(server.end(), 0) << server.said();

  ServerProcess killed({"--context", "512"});
  killed.send_signal(SIGKILL);
  EXPECT_EQ(killed.end(), -SIGKILL);
  EXPECT_THROW(ServerProcess({"--model", "/nowhere"}), std::runtime_error);
}

}  // namespace fathom::test
