// How figures of tests are written, in text and on pages.
#pragma once

#include <string>
#include <string_view>

#include "eval/report.h"
#include "eval/statistics.h"

namespace fathom {

inline std::string_view mode_name(bool thinking) { return thinking ? "thinking" : "direct"; }
// "97.5 % (93.1 – 99.2)"
std::string share_text(const Estimate& estimate);
// "+1.2 points (-0.4 – +2.8)"
std::string difference_text(const Estimate& estimate);
// "sample · sparse attention · suite quick (23 tasks, 20 questions of each), held out, seed 1 · greedy · at most 1000
// tokens · w8a16, bf16 cache, avx512"
std::string run_text(const EvalRun& run);

}  // namespace fathom
