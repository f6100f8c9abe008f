// Runs the program as a user's shell does.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace fathom::test {

inline const std::string kSample = FATHOM_MODELS "/sample";

struct ProcessResult {
  int exit_code = -1;  // −1: ended by a signal
  std::string out, err;
};

struct ProcessOptions {
  std::string input{};                               // given on stdin, then end of file
  std::map<std::string, std::string> environment{};  // added to this process's
  // Sends SIGINT once stdout has this many bytes; 0: never.
  size_t interrupt_after_bytes = 0;
  // Sends `signal`, once, as soon as this is true; asked every few milliseconds.
  std::function<bool()> signal_when{};
  int signal = 0;
  // Files cannot grow past this, as if the disk were full; 0: no limit.
  uint64_t file_size_limit_bytes = 0;
};

// What a command left in a file.
std::string contents(const std::filesystem::path& file);

ProcessResult run_fathom(const std::vector<std::string>& arguments, const ProcessOptions& options = {});

}  // namespace fathom::test
