// From logits to the next token.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"

namespace fathom {

// Applied in this order: tokens that are not allowed left out, penalties, temperature, top-k, top-p, min-p.
struct SamplingParams {
  double temperature = 1.0;        // 0: greedy, the largest logit, ties to the lower id
  double top_p = 1.0;              // the smallest set of best tokens whose probability reaches this
  int64_t top_k = 0;               // 0: all
  double min_p = 0.0;              // drop tokens below this fraction of the best token's probability
  double presence_penalty = 0.0;   // subtracted once from the logit of every token generated before
  double frequency_penalty = 0.0;  // subtracted for each time it was generated
  double repetition_penalty =
      1.0;  // logits of tokens of the prompt or the answer: divided if positive, else multiplied
  uint64_t seed = 0;
};

// Every problem at once, naming parameter, value and range.
Status validate(const SamplingParams& params);

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;  // natural logarithm
};

struct SampledToken {
  int32_t id = 0;
  // Under the model's own distribution: before penalties, temperature and truncation.
  float logprob = 0;
  std::vector<TokenLogprob> top{};  // the most likely ones, best first
};

// The token with its log-probability under the distribution that the logits (V) mean, and those of the `top` most likely ones.
SampledToken with_logprobs(int32_t id, std::span<const float> logits, int64_t top);

// One sequence's sampler: the random state and the counts that the penalties want. The same seed and logits give the
// same tokens on every machine. Not thread-safe.
class Sampler {
 public:
  Sampler(const SamplingParams& params, std::span<const int32_t> prompt);

  // logits (V). top: how many alternatives to report; logprobs are computed only if asked for.
  // allowed: bit i % 64 of word i / 64 is token i; tokens past its end are not allowed; empty: all are.
  SampledToken sample(std::span<const float> logits, bool want_logprob, int64_t top,
                      std::span<const uint64_t> allowed = {});
  // The token that `sample` would give for these logits, without taking it.
  int32_t foresee(std::span<const float> logits, std::span<const uint64_t> allowed = {});

 private:
  void prepare(std::span<const float> logits, std::span<const uint64_t> allowed);
  void penalise();
  int32_t choose();

  SamplingParams params_;
  std::mt19937_64 random_;
  std::unordered_map<int32_t, int64_t> generated_;  // token -> times
  std::vector<int32_t> prompt_;                     // distinct tokens; only kept for the repetition penalty
  std::vector<float> logits_;
  std::vector<uint64_t> order_;
  std::vector<double> weight_;
};

}  // namespace fathom
