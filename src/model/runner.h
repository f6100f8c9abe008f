// A model ready to run: one virtual call per step, whatever the backend.
#pragma once

#include <memory>

#include "base/cpu_features.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "checkpoint/weight_store.h"
#include "ops/kv_cache.h"
#include "ops/linear.h"
#include "ops/step.h"
#include "tensor/tensor.h"

namespace fathom {

struct RunnerSettings {
  Isa isa = Isa::kPortable;
  Numerics numerics = Numerics::kW8A16;
  bool reproducible = false;     // attention in one form everywhere: decoding has the bits of prefill
  bool dense_attention = false;  // leave the indexer out: every query attends to all it sees
};

// Tensors stay valid until the next call.
struct StepOutput {
  Tensor logits;  // (logit_rows, V)
  Tensor hidden;  // of `forward`: (T, hidden), after the final norm: what `draft` wants
};

// Not thread-safe: one thread at a time. Deterministic: a row's result depends on its sequence alone, bit for bit — not
// on other slices of the step, on how a prompt is cut into steps, nor on the number of threads. Unless `reproducible`, rows of a
// prompt (Slice::prompt) agree with the same rows decoded to rounding only.
class Runner {
 public:
  virtual ~Runner() = default;
  // Appends the step's rows to the caches of all main layers.
  virtual StepOutput forward(const Step& step) = 0;
  // The MTP layer: row t of the step is made from hidden (T, hidden) of position t and the token after it. Appends all rows to
  // the MTP layer's cache; a row whose logits are not wanted costs little more than that. Only where there is that layer.
  virtual StepOutput draft(const Step& step, Tensor hidden) = 0;
  // Scratch memory held now.
  virtual size_t scratch_bytes() const = 0;
};

KvLayout kv_layout(const ModelConfig& config, LatentFormat format);

// `store` and `pool` must outlive the runner.
std::unique_ptr<Runner> make_cpu_runner(const WeightStore& store, const RunnerSettings& settings, ThreadPool& pool);

}  // namespace fathom
