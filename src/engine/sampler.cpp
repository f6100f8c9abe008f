#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "ops/indexer.h"

namespace fathom {

Status validate(const SamplingParams& p) {
  std::string problems;
  const auto check = [&](bool ok, std::string_view name, double value, std::string_view range) {
    if (!ok) problems += fmt::format("{}{} = {}: expected {}", problems.empty() ? "" : "\n", name, value, range);
  };
  check(p.temperature >= 0 && p.temperature <= 100, "temperature", p.temperature, "a number from 0 to 100");
  check(p.top_p > 0 && p.top_p <= 1, "top_p", p.top_p, "a number above 0, at most 1");
  check(p.top_k >= 0, "top_k", static_cast<double>(p.top_k), "0 (all) or a positive count");
  check(p.min_p >= 0 && p.min_p <= 1, "min_p", p.min_p, "a number from 0 to 1");
  check(std::fabs(p.presence_penalty) <= 2, "presence_penalty", p.presence_penalty, "a number from -2 to 2");
  check(std::fabs(p.frequency_penalty) <= 2, "frequency_penalty", p.frequency_penalty, "a number from -2 to 2");
  check(p.repetition_penalty > 0 && p.repetition_penalty <= 10, "repetition_penalty", p.repetition_penalty,
        "a number above 0, at most 10");
  if (!problems.empty()) return fail("{}", problems);
  return {};
}

SampledToken with_logprobs(int32_t id, std::span<const float> logits, int64_t top) {
  SampledToken token{.id = id};
  const float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float x : logits) sum += std::exp(static_cast<double>(x) - best);
  const double log_sum = best + std::log(sum);
  const auto logprob = [&](int32_t of) {
    return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(of)]) - log_sum);
  };
  token.logprob = logprob(id);
  std::vector<uint64_t> leaders;  // best first
  for (size_t i = 0; i < logits.size() && top > 0; ++i) {
    const uint64_t key = candidate_key(logits[i], static_cast<uint32_t>(i));
    if (static_cast<int64_t>(leaders.size()) == top) {
      if (key < leaders.back()) continue;
      leaders.pop_back();
    }
    leaders.insert(std::upper_bound(leaders.begin(), leaders.end(), key, std::greater<>()), key);
  }
  for (const uint64_t key : leaders) {
    const int32_t leader = static_cast<int32_t>(candidate_index(key));
    token.top.push_back({leader, logprob(leader)});
  }
  return token;
}

Sampler::Sampler(const SamplingParams& params, std::span<const int32_t> prompt)
    : params_(params), random_(params.seed) {
  if (params_.repetition_penalty == 1.0) return;
  prompt_.assign(prompt.begin(), prompt.end());
  std::sort(prompt_.begin(), prompt_.end());
  prompt_.erase(std::unique(prompt_.begin(), prompt_.end()), prompt_.end());
}

void Sampler::prepare(std::span<const float> logits, std::span<const uint64_t> allowed) {
  logits_.assign(logits.begin(), logits.end());
  penalise();
  if (allowed.empty()) return;
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const size_t covered = std::min(logits_.size(), allowed.size() * 64);
  for (size_t i = 0; i < covered; ++i)
    if ((allowed[i / 64] >> (i % 64) & 1) == 0) logits_[i] = kNever;
  std::fill(logits_.begin() + static_cast<std::ptrdiff_t>(covered), logits_.end(), kNever);
}

SampledToken Sampler::sample(std::span<const float> logits, bool want_logprob, int64_t top,
                             std::span<const uint64_t> allowed) {
  prepare(logits, allowed);
  const int32_t id = choose();
  ++generated_[id];
  return want_logprob ? with_logprobs(id, logits, top) : SampledToken{.id = id};
}

int32_t Sampler::foresee(std::span<const float> logits, std::span<const uint64_t> allowed) {
  const std::mt19937_64 before = random_;
  prepare(logits, allowed);
  const int32_t id = choose();
  random_ = before;
  return id;
}

void Sampler::penalise() {
  if (params_.repetition_penalty != 1.0) {
    const auto repeat = [&](int32_t id) {
      float& x = logits_[static_cast<size_t>(id)];
      x = static_cast<float>(x > 0 ? x / params_.repetition_penalty : x * params_.repetition_penalty);
    };
    for (int32_t id : prompt_)
      if (!generated_.contains(id)) repeat(id);
    for (const auto& [id, times] : generated_) repeat(id);
  }
  for (const auto& [id, times] : generated_)
    logits_[static_cast<size_t>(id)] -=
        static_cast<float>(params_.presence_penalty + params_.frequency_penalty * static_cast<double>(times));
}

int32_t Sampler::choose() {
  if (params_.temperature == 0)
    return static_cast<int32_t>(std::max_element(logits_.begin(), logits_.end()) - logits_.begin());

  // Best first, as far as needed: top-p rarely reaches beyond a few hundred tokens, so sort a small head and extend it.
  order_.clear();
  for (size_t i = 0; i < logits_.size(); ++i) order_.push_back(candidate_key(logits_[i], static_cast<uint32_t>(i)));
  size_t sorted = 0;
  const auto sort_to = [&](size_t count) {
    count = std::min(count, order_.size());
    if (count <= sorted) return;
    const auto from = order_.begin() + static_cast<std::ptrdiff_t>(sorted),
               to = order_.begin() + static_cast<std::ptrdiff_t>(count);
    if (to != order_.end()) std::nth_element(from, to, order_.end(), std::greater<>());
    std::sort(from, to, std::greater<>());
    sorted = count;
  };
  sort_to(512);
  const auto logit = [&](size_t rank) { return static_cast<double>(logits_[candidate_index(order_[rank])]); };
  const double best = logit(0);
  if (!std::isfinite(best))
    return static_cast<int32_t>(candidate_index(order_[0]));  // NaN comes first; for the caller to see
  const auto mass = [&](double x) { return std::exp((x - best) / params_.temperature); };

  const size_t limit = params_.top_k > 0 ? std::min(order_.size(), static_cast<size_t>(params_.top_k)) : order_.size();
  double total = 0;
  if (limit < order_.size()) {
    sort_to(limit);
    for (size_t i = 0; i < limit; ++i) total += mass(logit(i));
  } else {
    for (float x : logits_) total += mass(static_cast<double>(x));
  }
  weight_.clear();
  double kept = 0;
  for (size_t i = 0; i < limit; ++i) {
    if (i == sorted) sort_to(4 * sorted);
    const double w = mass(logit(i));
    // min-p is relative to the best token, whose mass is 1. What has no mass is never drawn, however that is rounded.
    if (i > 0 && (w < params_.min_p || w == 0)) break;
    weight_.push_back(w);
    kept += w;
    if (params_.top_p < 1 && kept >= params_.top_p * total) break;
  }

  // 53 random bits as a number in [0, 1): the standard's distributions differ between libraries.
  const double draw = static_cast<double>(random_() >> 11) * 0x1p-53 * kept;
  double sum = 0;
  for (size_t i = 0; i < weight_.size(); ++i) {
    sum += weight_[i];
    if (draw < sum) return static_cast<int32_t>(candidate_index(order_[i]));
  }
  return static_cast<int32_t>(candidate_index(order_[weight_.size() - 1]));
}

}  // namespace fathom
