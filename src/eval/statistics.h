// What can be said about a share or a difference from some hundred answers.
//
// Answers to one question resemble each other, in whatever mode it was asked: they count as one cluster. Intervals are
// of 95 %, two-sided. Distributions are Boost.Math's.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace fathom {

struct Interval {
  double low = 0, high = 0;
};

// A score, and the cluster that it belongs to.
struct Observation {
  std::string_view question;
  double value = 0;
};

struct Estimate {
  double value = 0;  // the mean
  Interval interval{};
  int64_t answers = 0, questions = 0;
};

// Of right answers among independent ones. With p = right / n and z = 1.96:
//   (p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n)          Wilson (1927)
// n = 0: [0, 1].
Interval wilson_interval(int64_t right, int64_t n);

// Observations are 0 or 1. One a question: Wilson's interval. Otherwise, for n observations of C questions,
//   mean ± t(C - 1) · sqrt(C/(C - 1) Σ_c (Σ_i∈c (x_i - mean))²) / n,
// cut to [0, 1]; t is the 97.5 % quantile of Student's distribution. Where all observations agree that would be a
// point: then Wilson's interval of C answers. No observations, and several of a single question, say nothing: [0, 1].
Estimate estimate_share(std::span<const Observation> observations);

// Observations are from -1 to 1: b - a for the same question in the same mode. The interval is that of estimate_share
// for clusters, cut to [-1, 1]. Where all observations agree, it is as wide on either side as the share of different
// ones that Wilson's interval of C answers allows. From fewer than two questions: [-1, 1].
Estimate estimate_difference(std::span<const Observation> observations);

// The difference that would be found in 80 of 100 repetitions, from an interval that estimate_difference gave:
// half its width · (z(97.5 %) + z(80 %)) / z(97.5 %).
double detectable_difference(const Interval& interval);

// The probability of a split at least as uneven when neither is better: 2 P(X ≤ min(gains, losses)), X binomial of
// gains + losses draws at ½, at most 1. Of questions with one answer each this is McNemar's exact test.
double sign_test(int64_t gains, int64_t losses);

}  // namespace fathom
