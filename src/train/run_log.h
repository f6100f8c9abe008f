// What was measured at each step: a line of JSON in a file, and a line for whoever watches.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "train/recipe.h"

namespace fathom::train {

// Losses are means over the step: nats per unit of loss weight; KL nats per row and layer.
struct StepRecord {
  std::string stage;
  int64_t step = 0;    // counted from 1
  int64_t tokens = 0;  // rows of this step
  double loss = 0, gradient_norm = 0, learning_rate = 0, tokens_per_second = 0, seconds = 0;
  double memory_mb = 0;  // of the process, its peak since the stage began or was resumed
  std::optional<double> mtp_loss, kl;
  std::optional<double> recall;   // share of the dense attention that the selection holds, mean over rows and layers
  std::optional<double> balance;  // busiest expert over the mean, mean over layers
};

// DIR/log.jsonl. Appends; every line is on its way to the disk when `add` returns.
class RunLog {
 public:
  // Keeps the lines up to the first that is not `done`: what a killed run wrote after its last state goes.
  static Result<RunLog> open(const std::filesystem::path& file, const std::function<bool(const StepRecord&)>& done);
  ~RunLog();
  RunLog(RunLog&& other) noexcept;
  RunLog& operator=(RunLog&&) = delete;

  Status add(const StepRecord& record);
  const std::vector<StepRecord>& records() const { return records_; }

 private:
  RunLog() = default;
  std::filesystem::path file_;
  int fd_ = -1;
  std::vector<StepRecord> records_;
};

// The live line on a terminal; elsewhere a line now and then.
class RunDisplay {
 public:
  RunDisplay(const Recipe& recipe);
  ~RunDisplay();
  void step(size_t stage, const StepRecord& record);
  void say(const std::string& line);  // on a line of its own

 private:
  const Recipe& recipe_;
  bool terminal_, visible_ = false;
  std::chrono::steady_clock::time_point shown_{};
};

}  // namespace fathom::train
