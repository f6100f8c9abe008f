// What is said about many measurements of one kind.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom::load {

// Exact order statistics. All 0 where count is.
struct Summary {
  int64_t count = 0;
  double mean = 0, min = 0, median = 0, p90 = 0, p95 = 0, p99 = 0, p999 = 0, max = 0;
};
Summary summarize(std::vector<double> values);

// Of at least one value, rising; q from 0 to 1. Between two values, linearly: at (n - 1) q, counted from 0 (type 7 of
// Hyndman and Fan, which NumPy and the usual serving benchmarks take).
double quantile(std::span<const double> sorted, double q);

}  // namespace fathom::load
