// What one call of the model works on: some tokens of some sequences.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "ops/kv_cache.h"
#include "tensor/tensor.h"

namespace fathom {

// Consecutive tokens of one sequence: positions [start, start + count). Its cache holds rows [0, start) already and
// `blocks` names room for rows up to start + count.
struct Slice {
  int64_t start = 0, count = 0;
  const int32_t* blocks = nullptr;
  // Rows of a prompt: known all at once, so attention may take the form that is cheaper for many (ops/attention.h).
  bool prompt = false;
};

// Receives what `fathom trace` records and the lens shows, while a step runs. Rows are those of the step.
class TraceSink {
 public:
  virtual ~TraceSink() = default;
  // Which rows' scores and shares of attention are wanted: each costs another look at every key.
  virtual bool wants_scores(int64_t /*row*/) { return true; }
  virtual bool wants_attention_share(int64_t /*row*/) { return false; }
  virtual void layer_value(std::string_view name, int64_t layer, const Tensor& value) = 0;
  // Scores of one row against every key it sees.
  virtual void index_scores(int64_t layer, int64_t row, std::span<const float> scores) = 0;
  virtual void selected(int64_t layer, int64_t row, std::span<const int32_t> keys) = 0;
  // How much of a row's attention to all it sees falls on the keys that were selected: sums of softmax, mean over heads.
  virtual void attention_share(int64_t /*layer*/, int64_t /*row*/, double /*share*/) {}
  virtual void routing(int64_t layer, const int32_t* expert, const float* weight, int64_t rows, int64_t top_k) = 0;
  // Choices to force instead of the model's own; empty: none. Keys are rising.
  virtual std::span<const int32_t> forced_selection(int64_t layer, int64_t position) = 0;
  virtual std::span<const int32_t> forced_experts(int64_t layer, int64_t position) = 0;
};

// The operations of a backend, as far as their time is told apart.
enum class Operation {
  kEmbed,
  kNorm,
  kRope,
  kLinear,  // projections of attention and indexer, the head
  kAppend,  // cache rows
  kIndexQuery,
  kIndexSelect,  // scores and top-k
  kAbsorb,
  kAttend,
  kProjectValues,
  kRoute,
  kMlp,
  kExperts,
  kOther,
};
inline constexpr size_t kOperationCount = static_cast<size_t>(Operation::kOther) + 1;
std::string_view operation_name(Operation operation);  // "index_select"

// Seconds that steps spent in each operation; added to, never cleared.
struct StepProfile {
  std::array<double, kOperationCount> seconds{};
};

// The rows of a step are those of its slices, one after the other.
struct Step {
  std::span<const int32_t> tokens;
  std::span<const Slice> slices;
  const KvCache* kv = nullptr;
  std::span<const int32_t> logit_rows;  // rows whose logits are wanted
  bool cached = false;                  // the rows are in the cache already: they are looked at, and nothing is written
  TraceSink* trace = nullptr;
  StepProfile* profile = nullptr;

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
};

}  // namespace fathom
