#include "load/settings.h"

#include <charconv>
#include <cmath>
#include <vector>

#include "base/quote.h"

namespace fathom::load {

Result<GoodputLimits> parse_goodput(std::string_view text) {
  GoodputLimits limits;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view item = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    const size_t colon = item.find(':');
    const std::string_view name = item.substr(0, colon);
    const std::string_view number = colon == item.npos ? "" : item.substr(colon + 1);
    std::optional<double>* limit = name == "ttft"           ? &limits.ttft_ms
                                   : name == "first_answer" ? &limits.first_answer_ms
                                   : name == "tpot"         ? &limits.tpot_ms
                                   : name == "e2e"          ? &limits.e2e_ms
                                                            : nullptr;
    double value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (!limit || error != std::errc() || end != number.data() + number.size() || !std::isfinite(value) || value <= 0) {
      return fail(
          "--goodput: found {}, expected NAME:MILLISECONDS with the names ttft, first_answer, tpot, e2e and commas "
          "between",
          in_quotes(item));
    }
    *limit = value;
  }
  return limits;
}

Status check_settings(const LoadSettings& s) {
  std::vector<std::string> problems;
  const auto demand = [&](bool holds, std::string_view problem) {
    if (!holds) problems.emplace_back(problem);
  };
  const WorkloadSettings& w = s.workload;
  demand(s.requests || s.duration_s, "--requests or --duration must say when it ends");
  demand(!s.requests || *s.requests > 0, "--requests: expected a number from 1");
  demand(!s.duration_s || (std::isfinite(*s.duration_s) && *s.duration_s > 0), "--duration: expected seconds above 0");
  demand(!s.rate || *s.rate > 0, "--rate: expected requests per second above 0, or inf");
  demand(!s.rate || !std::isinf(*s.rate) || s.requests, "--rate inf sends all at once: --requests must say how many");
  demand(s.rate || s.concurrency > 0, "--concurrency: expected a number from 1");
  demand(std::isfinite(s.timeout_s) && s.timeout_s > 0, "--timeout: expected seconds above 0");
  demand(s.warmup >= 0, "--warmup: expected a number from 0");
  demand(w.prompt_tokens > 0, "--prompt: expected a number of tokens from 1");
  demand(w.output_tokens >= 0, "--gen: expected a number of tokens from 0");
  demand(w.system_tokens >= 0, "--system: expected a number of tokens from 0");
  demand(std::isfinite(w.spread) && w.spread >= 0 && w.spread <= 1, "--spread: expected a share from 0 to 1");
  demand(w.turns > 0, "--turns: expected a number from 1");
  demand(std::isfinite(w.pause_s) && w.pause_s >= 0, "--pause: expected seconds from 0");
  demand(w.documents >= 0, "--documents: expected a number from 0");
  demand((w.kind == WorkloadKind::kFile) != w.file.empty(), "--workload file and --file FILE belong together");
  demand(s.request.extra.is_object(), "--body: expected a JSON object");
  // Anything else could smuggle a second header into the request.
  bool printable = true;
  for (const char c : s.api_key) printable = printable && c > ' ' && c <= '~';
  demand(printable, "the API key: expected visible ASCII characters without spaces");
  if (problems.empty()) return {};
  std::string all = problems.front();
  for (size_t i = 1; i < problems.size(); ++i) all += "\n  " + problems[i];
  return fail("{}", all);
}

std::string describe_workload(const WorkloadSettings& w) {
  const std::string out = w.output_tokens > 0 ? fmt::format("{} out", w.output_tokens) : "answers end by themselves";
  const std::string shared = w.system_tokens > 0 ? fmt::format(", after {} that all share", w.system_tokens) : "";
  switch (w.kind) {
    case WorkloadKind::kFixed:
      return fmt::format("fixed: {} tokens in{}, {}", w.prompt_tokens, shared, out);
    case WorkloadKind::kRandom:
      return fmt::format("random: {} tokens in{}, {}, {} ±{:.0f} %", w.prompt_tokens, shared, out,
                         w.normal ? "normal" : "uniform", 100 * w.spread);
    case WorkloadKind::kConversations:
      return fmt::format("conversations: {} turns of {} tokens in{}, {}", w.turns, w.prompt_tokens, shared, out);
    case WorkloadKind::kLong:
      return fmt::format("long: {} of {} tokens{}, a question each, {}",
                         w.documents > 0 ? fmt::format("{} documents", w.documents) : "documents", w.prompt_tokens,
                         shared, out);
    case WorkloadKind::kFile:
      return fmt::format("file: {}", w.file.string());
  }
  return "";
}

std::string describe_arrivals(const LoadSettings& s) {
  if (!s.rate) return fmt::format("closed loop, {} client{}", s.concurrency, s.concurrency == 1 ? "" : "s");
  return std::isinf(*s.rate) ? "all at once" : fmt::format("Poisson, {:g} requests/s", *s.rate);
}

}  // namespace fathom::load
