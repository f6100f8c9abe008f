#include "load/load_run.h"

namespace fathom::load {

int64_t RequestRecord::output_tokens() const {
  return answer.usage.output_tokens.value_or(static_cast<int64_t>(answer.arrivals_s.size()));
}

std::optional<double> RequestRecord::ttft_s() const {
  if (answer.arrivals_s.empty()) return std::nullopt;
  return answer.arrivals_s.front() - start_s;
}

std::optional<double> RequestRecord::first_reasoning_s() const {
  if (!answer.first_reasoning_s) return std::nullopt;
  return *answer.first_reasoning_s - start_s;
}

std::optional<double> RequestRecord::first_answer_s() const {
  if (!answer.first_answer_s) return std::nullopt;
  return *answer.first_answer_s - start_s;
}

std::optional<double> RequestRecord::e2e_s() const {
  if (answer.last_s == 0) return std::nullopt;
  return answer.last_s - start_s;
}

std::optional<double> RequestRecord::tpot_s() const {
  const int64_t n = output_tokens();
  if (n < 2 || answer.arrivals_s.empty()) return std::nullopt;
  return (*e2e_s() - *ttft_s()) / static_cast<double>(n - 1);
}

bool RequestRecord::within(const GoodputLimits& limits) const {
  const auto holds = [](const std::optional<double>& limit_ms, const std::optional<double>& seconds) {
    return !limit_ms || !seconds || 1e3 * *seconds <= *limit_ms;
  };
  return holds(limits.ttft_ms, ttft_s()) && holds(limits.first_answer_ms, first_answer_s()) &&
         holds(limits.tpot_ms, tpot_s()) && holds(limits.e2e_ms, e2e_s());
}

}  // namespace fathom::load
