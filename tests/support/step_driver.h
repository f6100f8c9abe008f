// Runs a model directly, step by step, with several sequences in one cache.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/weight_store.h"
#include "model/runner.h"
#include "ops/step.h"
#include "support/kv_memory.h"

namespace fathom {

class StepDriver {
 public:
  // Every sequence has room for `tokens` tokens. The reference backend always gets a float32 cache.
  StepDriver(const WeightStore& store, const RunnerSettings& settings, LatentFormat format, int threads,
             int64_t sequences, int64_t tokens)
      : hidden_size_(store.config().hidden_size),
        vocab_(store.config().vocab_size),
        per_sequence_((tokens + kBlockTokens - 1) / kBlockTokens),
        threads_(threads),
        memory_(kv_layout(store.config(), settings.isa == Isa::kReference ? LatentFormat::kF32 : format),
                store.config().total_layers(), sequences * per_sequence_ * kBlockTokens),
        runner_(make_cpu_runner(store, settings, threads_)) {}

  struct Piece {
    int64_t sequence = 0, start = 0;
    std::span<const int32_t> tokens;
    bool prompt = false;
  };
  struct Output {
    std::vector<float> logits;  // of the rows wanted
    std::vector<float> hidden;  // of all rows of `forward`
    // Those of one piece.
    std::span<const float> logits_of(int64_t row, int64_t count, int64_t vocab) const {
      return std::span(logits).subspan(static_cast<size_t>(row * vocab), static_cast<size_t>(count * vocab));
    }
  };

  Output forward(const std::vector<Piece>& pieces) { return run(pieces, nullptr); }
  // hidden: of all rows of the pieces, one after the other. wanted: rows whose logits are; all, if it is not given.
  Output draft(const std::vector<Piece>& pieces, std::vector<float> hidden,
               std::optional<std::vector<int32_t>> wanted = {}) {
    return run(pieces, &hidden, std::move(wanted));
  }

 private:
  Output run(const std::vector<Piece>& pieces, std::vector<float>* hidden,
             std::optional<std::vector<int32_t>> wanted = {}) {
    std::vector<int32_t> tokens, rows;
    std::vector<Slice> slices;
    for (const Piece& piece : pieces) {
      slices.push_back({piece.start, static_cast<int64_t>(piece.tokens.size()),
                        memory_.blocks() + piece.sequence * per_sequence_, piece.prompt});
      tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
    }
    for (size_t i = 0; i < tokens.size(); ++i) rows.push_back(static_cast<int32_t>(i));
    Step step;
    step.tokens = tokens;
    step.slices = slices;
    step.kv = &memory_.cache;
    step.logit_rows = wanted ? *wanted : rows;
    const int64_t count = step.rows();
    const StepOutput out =
        hidden ? runner_->draft(step, Tensor::matrix(hidden->data(), count, hidden_size_)) : runner_->forward(step);
    const auto values = [](const Tensor& t) { return std::vector<float>(t.data, t.data + t.rows() * t.cols()); };
    return {values(out.logits), values(out.hidden)};
  }

  int64_t hidden_size_, vocab_, per_sequence_;
  ThreadPool threads_;
  KvMemory memory_;
  std::unique_ptr<Runner> runner_;
};

}  // namespace fathom
