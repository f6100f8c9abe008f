// Two tests, answer by answer: is one better, or is it chance?
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "eval/report.h"
#include "eval/statistics.h"

namespace fathom {

// Of the questions that both answered in the same mode.
struct PairedRow {
  std::string task;  // empty: all
  std::optional<bool> thinking;
  std::optional<int64_t> length;  // of look-ups
  Estimate a, b;                  // shares of right answers among the pairs
  Estimate difference;            // b - a
  double detectable = 0;          // detectable_difference of it
  int64_t gains = 0, losses = 0;  // questions that b got right more, and less, often than a
  double p = 1;                   // sign_test of them
};

struct Comparison {
  EvalRun a, b;
  int64_t pairs = 0, only_a = 0, only_b = 0;  // answers
  PairedRow overall;
  std::vector<PairedRow> by_mode, by_task, by_length;  // by_task: task and mode; by_length: length and mode
  std::vector<std::string> flips;                      // ids of the questions that changed, in the order of a
};

// Fails where no question is in both, and where the longest answer or the number of samples differs: what was asked for
// was not the same then.
Result<Comparison> compare_reports(const EvalReport& a, const EvalReport& b);

std::string comparison_text(const Comparison& comparison);
std::string comparison_json(const Comparison& comparison);
std::string comparison_html(const Comparison& comparison);

}  // namespace fathom
