// Measurements of single operations as a table and as JSON.
#include <fmt/format.h>

#include <iterator>

#include "engine/bench_kernels.h"
#include "text/json.h"

namespace fathom {

namespace {

std::string time_text(double seconds) {
  if (seconds >= 0.1) return fmt::format("{:.3f} s", seconds);
  return seconds >= 1e-4 ? fmt::format("{:.3f} ms", seconds * 1e3) : fmt::format("{:.2f} µs", seconds * 1e6);
}

std::string rate(double amount, double seconds) {
  return amount > 0 ? fmt::format("{:.1f}", amount / seconds * 1e-9) : "–";
}
std::string share(double amount, double seconds, double limit) {
  return amount > 0 ? fmt::format("{:.1f} %", 100 * amount / seconds * 1e-9 / limit) : "–";
}

}  // namespace

std::string kernels_text(const KernelReport& r) {
  std::string out;
  const auto line = [&]<typename... Args>(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
    out += '\n';
  };
  const MachineLimits limits = between(r.limits_before, r.limits_after);
  line("{}, {} cores; {}, {} thread{}", r.machine.cpu, r.machine.cores, r.isa, r.threads, r.threads == 1 ? "" : "s");
  line("stream {:.1f} GB/s before, {:.1f} after; peak {:.0f} GFLOP/s before, {:.0f} after\n",
       r.limits_before.stream_gb_per_s, r.limits_after.stream_gb_per_s, r.limits_before.peak_gflops,
       r.limits_after.peak_gflops);
  line("{:<48}{:>12}{:>9}{:>11}{:>11}{:>9}{:>13}", "operation", "time", "spread", "GFLOP/s", "% of peak", "GB/s",
       "% of stream");
  for (const KernelResult& k : r.kernels) {
    const double s = k.seconds.median;
    line("{:<48}{:>12}{:>9}{:>11}{:>11}{:>9}{:>13}", k.name, time_text(s),
         fmt::format("{:.1f} %", 100 * k.seconds.relative()), rate(k.flops, s), share(k.flops, s, limits.peak_gflops),
         rate(k.bytes, s), share(k.bytes, s, limits.stream_gb_per_s));
  }
  return out;
}

std::string kernels_json(const KernelReport& r) {
  const auto limits = [](const MachineLimits& l) {
    return Json{{"stream_gb_per_s", l.stream_gb_per_s}, {"peak_gflops", l.peak_gflops}};
  };
  Json kernels = Json::array();
  for (const KernelResult& k : r.kernels)
    kernels.push_back({{"name", k.name},
                       {"seconds", {{"median", k.seconds.median}, {"min", k.seconds.min}, {"max", k.seconds.max}}},
                       {"flops", k.flops},
                       {"bytes", k.bytes}});
  const Json json{
      {"fathom_bench_kernels", 1},
      {"isa", r.isa},
      {"threads", r.threads},
      {"machine", {{"cpu", r.machine.cpu}, {"cores", r.machine.cores}, {"memory_bytes", r.machine.memory_bytes}}},
      {"limits_before", limits(r.limits_before)},
      {"limits_after", limits(r.limits_after)},
      {"kernels", std::move(kernels)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace fathom
