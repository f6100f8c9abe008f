// What a step of the model must at least do: floating-point operations and bytes read, by part of the model. Follows
// from shapes alone; measured times are compared with it, and unmeasured ones predicted from it.
//   projections  2 FLOP for every weight element that a token multiplies; weights are read once a step
//   attention    absorbed form: 2·H·(2R + Dr) a query-key pair and layer, over the keys attended to; rows of a prompt
//                (several in a step) that attend to all they see: 2·H·(Dn + Dr + Dv), the un-absorbed form
//   indexer      2·Hn·D a query-key pair and layer, over all visible keys; nothing while all of them are selected
//   experts      with t tokens in a step, E·(1 − (1 − k/E)^t) distinct experts are read: routing taken as uniform
//   caches       a row that a sequence's queries read counts once a step
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "checkpoint/config.h"
#include "ops/kv_cache.h"

namespace fathom {

enum class WorkPart {
  kAttentionProjections,
  kAttention,
  kIndexerProjections,
  kIndexer,
  kDenseMlp,
  kSharedExperts,
  kRoutedExperts,
  kRouter,
  kHead,
};
inline constexpr size_t kWorkPartCount = static_cast<size_t>(WorkPart::kHead) + 1;
std::string_view work_part_name(WorkPart part);  // "attention projections"

struct Work {
  double flops = 0, weight_bytes = 0, cache_bytes = 0;

  double bytes() const { return weight_bytes + cache_bytes; }
  Work& operator+=(const Work& other);
};

struct StepWork {
  std::array<Work, kWorkPartCount> parts{};

  Work& operator[](WorkPart part) { return parts[static_cast<size_t>(part)]; }
  const Work& operator[](WorkPart part) const { return parts[static_cast<size_t>(part)]; }
  Work total() const;
  StepWork& operator+=(const StepWork& other);
};

// `sequences` sequences with the tokens [start, start + count) of each; logits of `logit_rows` rows.
struct StepShape {
  int64_t sequences = 1, start = 0, count = 1, logit_rows = 1;
};

struct WorkSettings {
  bool dense_attention = false;  // as if the model had no indexer
  LatentFormat latent_format = LatentFormat::kBf16;
};

// FLOPs a query-key pair and layer.
inline double real(int64_t x) { return static_cast<double>(x); }  // counts, as factors

double attention_pair_flops(const ModelConfig& config);  // absorbed
double prompt_pair_flops(const ModelConfig& config);     // un-absorbed
double indexer_pair_flops(const ModelConfig& config);

// Of all routed experts of a layer, how many are expected to be chosen by at least one of `tokens` tokens.
double expected_distinct_experts(const ModelConfig& config, double tokens);

// Main layers, without the MTP layer. Weights in the formats of the published checkpoints.
StepWork step_work(const ModelConfig& config, const WorkSettings& settings, const StepShape& shape);

}  // namespace fathom
