// Runs the program as a user's shell does.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace fathom::test {

struct ProcessResult {
  int exit_code = -1;  // −1: ended by a signal
  std::string out, err;
};

struct ProcessOptions {
  std::string input;                               // given on stdin, then end of file
  std::map<std::string, std::string> environment;  // added to this process's
  // Sends SIGINT once stdout, or else this file, has so many bytes; 0: never.
  size_t interrupt_after_bytes = 0;
  std::string interrupt_file{};
};

ProcessResult run_fathom(const std::vector<std::string>& arguments, const ProcessOptions& options = {});

}  // namespace fathom::test
