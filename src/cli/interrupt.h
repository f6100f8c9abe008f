// Ctrl-C stops what is under way, not the program.
#pragma once

#include <atomic>
#include <csignal>
#include <initializer_list>
#include <utility>
#include <vector>

namespace fathom {

// While one of these lives, the signals set its flag instead of ending the program. One at a time.
class InterruptFlag {
 public:
  explicit InterruptFlag(std::initializer_list<int> signals = {SIGINT});
  ~InterruptFlag();
  InterruptFlag(const InterruptFlag&) = delete;
  InterruptFlag& operator=(const InterruptFlag&) = delete;

  const std::atomic<bool>& flag() const;
  void clear();

 private:
  std::vector<std::pair<int, struct sigaction>> before_;
};

}  // namespace fathom
