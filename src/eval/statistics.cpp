#include "eval/statistics.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <unordered_map>

#include "base/check.h"

namespace fathom {

namespace {

constexpr double kUpper = 0.975, kPower = 0.80;

double normal_quantile(double p) { return boost::math::quantile(boost::math::normal(), p); }

// Mean and counts, and half the width of the clustered interval: 0 for a single question.
struct Clustered {
  Estimate estimate;
  double half_width = 0;
};

Clustered cluster(std::span<const Observation> observations) {
  Clustered out;
  double sum = 0;
  for (const Observation& o : observations) sum += o.value;
  const auto n = static_cast<double>(observations.size());
  out.estimate.value = sum / n;
  std::unordered_map<std::string_view, double> deviation;  // of a question, summed
  for (const Observation& o : observations) deviation[o.question] += o.value - out.estimate.value;
  out.estimate.answers = static_cast<int64_t>(observations.size());
  out.estimate.questions = static_cast<int64_t>(deviation.size());
  const auto clusters = static_cast<double>(deviation.size());
  if (deviation.size() < 2) return out;
  // Each question once, in the order of the observations, so that the last bits are the same everywhere.
  double squares = 0;
  for (const Observation& o : observations) {
    double& d = deviation[o.question];
    squares += d * d;
    d = 0;
  }
  const double t = boost::math::quantile(boost::math::students_t(clusters - 1), kUpper);
  out.half_width = t * std::sqrt(clusters / (clusters - 1) * squares) / n;
  return out;
}

bool all_agree(std::span<const Observation> observations) {
  return std::ranges::all_of(observations, [&](const Observation& o) { return o.value == observations[0].value; });
}

Interval around(double value, double half_width, double least, double most) {
  return {std::max(value - half_width, least), std::min(value + half_width, most)};
}

}  // namespace

Interval wilson_interval(int64_t right, int64_t n) {
  FATHOM_CHECK(right >= 0 && right <= n, "{} right of {}", right, n);
  if (n == 0) return {0, 1};
  const double z = normal_quantile(kUpper), count = static_cast<double>(n), p = static_cast<double>(right) / count;
  const double middle = p + z * z / (2 * count);
  const double half = z * std::sqrt(p * (1 - p) / count + z * z / (4 * count * count));
  const double scale = 1 + z * z / count;
  // At the ends the formula gives 0 and 1 up to rounding.
  return {right == 0 ? 0 : (middle - half) / scale, right == n ? 1 : (middle + half) / scale};
}

Estimate estimate_share(std::span<const Observation> observations) {
  if (observations.empty()) return {.value = 0, .interval = {0, 1}};
  const auto [found, half_width] = cluster(observations);
  Estimate estimate = found;
  if (estimate.questions == estimate.answers || all_agree(observations)) {
    const auto n = static_cast<double>(estimate.questions);
    estimate.interval = wilson_interval(std::llround(estimate.value * n), estimate.questions);
  } else if (estimate.questions < 2) {
    estimate.interval = {0, 1};
  } else {
    estimate.interval = around(estimate.value, half_width, 0, 1);
  }
  return estimate;
}

Estimate estimate_difference(std::span<const Observation> observations) {
  if (observations.empty()) return {.value = 0, .interval = {-1, 1}};
  const auto [found, half_width] = cluster(observations);
  Estimate estimate = found;
  if (estimate.questions < 2) {
    estimate.interval = {-1, 1};
  } else {
    const double possible = all_agree(observations) ? wilson_interval(0, estimate.questions).high : half_width;
    estimate.interval = around(estimate.value, possible, -1, 1);
  }
  return estimate;
}

double detectable_difference(const Interval& interval) {
  const double z = normal_quantile(kUpper);
  return (interval.high - interval.low) / 2 * (z + normal_quantile(kPower)) / z;
}

double sign_test(int64_t gains, int64_t losses) {
  FATHOM_CHECK(gains >= 0 && losses >= 0, "{} gains, {} losses", gains, losses);
  if (gains + losses == 0) return 1;
  const boost::math::binomial even(static_cast<double>(gains + losses), 0.5);
  return std::min(1.0, 2 * boost::math::cdf(even, static_cast<double>(std::min(gains, losses))));
}

}  // namespace fathom
