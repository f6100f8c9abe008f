// What the CPU backends share: the step's rows, scratch, and the operations that only move data.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/memory.h"
#include "cpu/kernels.h"
#include "ops/indexer.h"
#include "ops/linear.h"
#include "ops/moe.h"
#include "ops/rope.h"
#include "ops/step.h"

namespace fathom::cpu {

struct BackendSettings {
  Isa isa = Isa::kPortable;
  InputRounding fp8_input = InputRounding::kBf16;  // what the inputs of FP8 layers are rounded to
  float rms_norm_eps = 1e-6f;
  std::vector<float> rope_inv_freq;  // (rope/2)
  int64_t index_topk = 0;            // 0: dense attention
  bool absorbed_only = false;        // attention in one form everywhere: decode = prefill, bit for bit
  // Rows of a prompt before this position attend in un-absorbed form; −1: as measured for the table.
  int64_t unabsorbed_until = -1;
};

// Adds the time until its end to the step's profile, if it has one.
class Timed {
 public:
  Timed(StepProfile* profile, Operation operation) : profile_(profile), operation_(operation) {
    if (profile_) begin_ = Clock::now();
  }
  ~Timed() {
    if (profile_) profile_->seconds[static_cast<size_t>(operation_)] += seconds_since(begin_);
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  StepProfile* profile_;
  Operation operation_;
  Clock::time_point begin_;
};

// Tensors returned are scratch: valid until the scope that was open when they were made is closed (`scope()`), at the
// latest until the next `begin_step`. One thread calls a backend.
//
// `keep_logit_rows()` of both backends: from there on the step has only those rows whose logits are wanted, which rise.
// Tensors made before have all of them still: `gather` those that are needed.
class BackendBase {
 public:
  ArenaScope scope() { return ArenaScope(arena_); }
  const Step& step() const { return *step_; }

  Tensor embed(const MatrixView& table, std::span<const int32_t> tokens);  // (T) -> (T,D)
  Tensor concat(Tensor a, Tensor b);                                       // (T,A) (T,B) -> (T,A+B)
  Tensor gather(Tensor x, std::span<const int32_t> rows);                  // (T,D) -> (rows,D)
  Selection all_visible();                                                 // dense attention
  // No row of the step sees more keys than are selected. False where a trace wants to see the scores.
  bool selects_all() const;

 protected:
  explicit BackendBase(BackendSettings settings) : settings_(std::move(settings)) {}

  Timed timed(Operation operation) const { return {step_->profile, operation}; }
  // Names the rows, caches and trace of all operations until the next call; frees all scratch.
  void begin_rows(const Step& step);
  void keep_rows();  // those whose logits are wanted
  Tensor make(int64_t rows, int64_t cols) {
    return Tensor::matrix(arena_.allocate<float>(static_cast<size_t>(rows * cols)), rows, cols);
  }
  Routing make_routing(int64_t rows, int64_t top_k) {
    return {arena_.allocate<int32_t>(static_cast<size_t>(rows * top_k)),
            arena_.allocate<float>(static_cast<size_t>(rows * top_k)), top_k};
  }
  void route_rows(const RouterSettings& settings, int64_t layer, Tensor logits, std::span<const float> bias,
                  int64_t begin, int64_t end, const Routing& routing) const;
  // The cache of the sequence that a row of the step belongs to.
  KvRows rows_of(int64_t layer, int64_t row) const {
    return {step_->kv, layer, step_->slices[static_cast<size_t>(slice_[static_cast<size_t>(row)])].blocks};
  }

  BackendSettings settings_;
  Arena arena_;
  const Step* step_ = nullptr;
  std::vector<int32_t> position_, slice_;  // of every row of the step

 private:
  void set_rows(const Step& step);

  // What keep_rows leaves of a step.
  Step kept_;
  std::vector<int32_t> kept_tokens_, kept_rows_;
  std::vector<Slice> kept_slices_;
};

}  // namespace fathom::cpu
