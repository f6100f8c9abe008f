// Options of `fathom train`, which is a program of its own: `fathom` reads them to explain and check them, then hands
// over.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace fathom {

struct TrainOptions {
  std::string recipe, out, from, ops = "fused";
  bool resume = false;
  int threads = 0;

  void add_to(CLI::App& command);
  // The same options as a command line.
  std::vector<std::string> arguments() const;
};

}  // namespace fathom
