#include "eval/format.h"

#include <fmt/format.h>

namespace fathom {

std::string share_text(const Estimate& e) {
  if (e.answers == 0) return "–";
  return fmt::format("{:.1f} % ({:.1f} – {:.1f})", 100 * e.value, 100 * e.interval.low, 100 * e.interval.high);
}

std::string difference_text(const Estimate& e) {
  if (e.answers == 0) return "–";
  return fmt::format("{:+.1f} ({:+.1f} – {:+.1f})", 100 * e.value, 100 * e.interval.low, 100 * e.interval.high);
}

std::string run_text(const EvalRun& run) {
  const EvalSettings& s = run.settings;
  const std::string sampling =
      s.temperature == 0 ? "greedy"
                         : fmt::format("temperature {}, top-p {}, {} samples", s.temperature, s.top_p, s.samples);
  return fmt::format(
      "{} · {} attention · suite {} ({} {}, {} of each), held out, seed {} · {} · at most {} tokens "
      "· {}, {} cache, {}",
      std::filesystem::path(run.model).filename().string(), run.attention, s.suite, s.tasks.size(),
      s.tasks.size() == 1 ? "task" : "tasks",
      s.questions == 1 ? "1 question" : fmt::format("{} questions", s.questions), s.seed, sampling, s.max_tokens,
      run.numerics, run.kv, run.isa);
}

}  // namespace fathom
