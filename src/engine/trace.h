// Recording what every stage of the model computes, under the names of the golden files.
//   logits (T,V) · mtp_logits (T−1,V) · attention_output.I, layer_output.I (T,hidden) · index_score.I (T,T) f32, −1e30
//   where not visible · selected.I (T,T) u8 · expert.J (T,k) i32 · expert_weight.J (T,k) f32
// I: layer, the MTP layer last; J: MoE layer counted from 0. Rows of the MTP layer are one fewer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weight_store.h"
#include "model/runner.h"

namespace fathom {

// Whole (rows, cols) arrays by name. 32-bit elements; U8 tensors (selected) are kept as bytes.
class TraceRecording {
 public:
  struct Value {
    DType dtype = DType::kF32;
    int64_t rows = 0, cols = 0;
    std::vector<std::byte> bytes;
    template <typename T>
    T* row(int64_t r) {
      return reinterpret_cast<T*>(bytes.data()) + r * cols;
    }
    template <typename T>
    const T* row(int64_t r) const {
      return reinterpret_cast<const T*>(bytes.data()) + r * cols;
    }
  };

  // The value, made with zeros on first use.
  Value& value(const std::string& name, DType dtype, int64_t rows, int64_t cols);
  const std::map<std::string, Value>& tensors() const { return tensors_; }
  Status write(const std::filesystem::path& path) const;

 private:
  std::map<std::string, Value> tensors_;
};

// Selections and expert choices of another trace.
class TraceReplay {
 public:
  // Verifies that the trace has every choice that the config implies, in range, for this many tokens.
  static Result<TraceReplay> load(const SafetensorsFile& file, const ModelConfig& config, int64_t tokens);
  // Empty when there is nothing to force.
  std::span<const int32_t> selection(int64_t layer, int64_t position) const;
  std::span<const int32_t> experts(int64_t layer, int64_t position) const;

 private:
  std::vector<std::vector<std::vector<int32_t>>> selection_;  // [layer][position] keys
  std::vector<std::vector<std::vector<int32_t>>> experts_;    // [layer][position] experts
};

struct TraceSettings {
  RunnerSettings runner;
  LatentFormat latent_format = LatentFormat::kBf16;
  int64_t chunk = 256;
  bool prompt_form = false;  // prefill as prompts are run (Slice::prompt), not in the form that decoding has too
  int64_t decode_from = 0;   // 0: prefill all; N: prefill N tokens, then one by one
  const TraceReplay* replay = nullptr;
};

// The tensor `tokens` (T) I32, checked against the vocabulary.
Result<std::vector<int32_t>> trace_tokens(const SafetensorsFile& file, const ModelConfig& config);
Result<TraceRecording> run_trace(const WeightStore& store, ThreadPool& threads, std::span<const int32_t> tokens,
                                 const TraceSettings& settings);

}  // namespace fathom
