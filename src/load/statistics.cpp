#include "load/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace fathom::load {

double quantile(std::span<const double> sorted, double q) {
  FATHOM_CHECK(!sorted.empty() && q >= 0 && q <= 1, "{} values, q = {}", sorted.size(), q);
  const double at = static_cast<double>(sorted.size() - 1) * q;
  const size_t low = static_cast<size_t>(at), high = std::min(low + 1, sorted.size() - 1);
  return std::lerp(sorted[low], sorted[high], at - std::floor(at));
}

Summary summarize(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  Summary s{.count = static_cast<int64_t>(values.size())};
  s.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  s.min = values.front();
  s.median = quantile(values, 0.5);
  s.p90 = quantile(values, 0.9);
  s.p95 = quantile(values, 0.95);
  s.p99 = quantile(values, 0.99);
  s.p999 = quantile(values, 0.999);
  s.max = values.back();
  return s;
}

}  // namespace fathom::load
