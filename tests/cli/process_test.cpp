// The helper that the other tests of this folder use, with its own test.
#include "cli/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace fathom::test {

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

ProcessResult run_fathom(const std::vector<std::string>& arguments, const ProcessOptions& options) {
  std::signal(SIGPIPE, SIG_IGN);
  std::array<int, 2> in{}, out{}, err{};
  if (pipe(in.data()) != 0 || pipe(out.data()) != 0 || pipe(err.data()) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    for (int fd : {in[0], in[1], out[0], out[1], err[0], err[1]}) close(fd);
    for (const auto& [name, value] : options.environment) setenv(name.c_str(), value.c_str(), 1);
    if (options.file_size_limit_bytes > 0) {
      const rlimit limit{options.file_size_limit_bytes, RLIM_INFINITY};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    std::vector<char*> argv;
    std::string program = FATHOM_BINARY;
    argv.push_back(program.data());
    std::vector<std::string> copies = arguments;
    for (std::string& a : copies) argv.push_back(a.data());
    argv.push_back(nullptr);
    execv(FATHOM_BINARY, argv.data());
    _exit(127);
  }
  for (int fd : {in[0], out[1], err[1]}) close(fd);
  fcntl(in[1], F_SETFL, O_NONBLOCK);
  ProcessResult result;
  constexpr int kSilenceMs = 60'000;
  int silent_ms = 0;
  size_t written = 0;
  bool interrupted = false, in_open = true;
  std::array<pollfd, 3> fds = {pollfd{out[0], POLLIN, 0}, pollfd{err[0], POLLIN, 0}, pollfd{in[1], POLLOUT, 0}};
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    if (in_open && written == options.input.size()) {
      close(in[1]);
      fds[2].fd = -1;
      in_open = false;
    }
    if (options.signal_when && !interrupted && options.signal_when()) {
      kill(child, options.signal);
      interrupted = true;
    }
    const int ready = poll(fds.data(), fds.size(), options.signal_when && !interrupted ? 5 : kSilenceMs);
    silent_ms = ready == 0 ? silent_ms + (options.signal_when && !interrupted ? 5 : kSilenceMs) : 0;
    if (ready < 0 || silent_ms >= kSilenceMs) {  // a hanging program fails its test instead of the whole run
      kill(child, SIGKILL);
      break;
    }
    if (in_open && fds[2].revents) {
      const ssize_t n = write(in[1], options.input.data() + written, options.input.size() - written);
      if (n > 0)
        written += static_cast<size_t>(n);
      else if (fds[2].revents & POLLERR)
        written = options.input.size();
    }
    for (size_t i = 0; i < 2; ++i) {
      if (fds[i].fd < 0 || !fds[i].revents) continue;
      std::array<char, 4096> block{};
      const ssize_t n = read(fds[i].fd, block.data(), block.size());
      if (n <= 0)
        fds[i].fd = -1;
      else
        (i == 0 ? result.out : result.err).append(block.data(), static_cast<size_t>(n));
    }
    if (options.interrupt_after_bytes && !interrupted && result.out.size() >= options.interrupt_after_bytes) {
      kill(child, SIGINT);
      interrupted = true;
    }
  }
  if (in_open) close(in[1]);
  close(out[0]);
  close(err[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  return result;
}

TEST(Process, ReportsExitCodeAndBothStreams) {
  const ProcessResult version = run_fathom({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_EQ(version.out.rfind("fathom ", 0), 0u) << version.out;
  EXPECT_EQ(version.err, "");
  EXPECT_EQ(run_fathom({"no-such-command"}).exit_code, 2);
}

}  // namespace fathom::test
