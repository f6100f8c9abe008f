// The CPU backend: the coarse operations that the model is written in. Each is defined by its contract in src/ops.
//
// Tensors returned are scratch: valid until the scope that was open when they were made is closed (`scope()`), at the
// latest until the next `begin_step`. One thread calls the backend; inside, operations use the whole pool.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/backend_base.h"

namespace fathom::cpu {

class Backend : public BackendBase {
 public:
  Backend(BackendSettings settings, ThreadPool& pool);

  void begin_step(const Step& step);
  void keep_logit_rows();
  size_t scratch_bytes() const;

  Tensor rms_norm(Tensor x, std::span<const float> gain);  // (T,D) -> (T,D)
  Tensor layer_norm(Tensor x, std::span<const float> gain, std::span<const float> bias);
  Tensor linear(Tensor x, const MatrixView& w);        // (T,K) -> (T,N)
  Tensor linear_exact(Tensor x, const MatrixView& w);  // input not rounded
  void add(Tensor x, Tensor delta);                    // x += delta
  void rope(Tensor x, RopePairs pairs);                // (T,H,Dr) in place

  void append_latent(int64_t layer, Tensor latent, Tensor rope_key);  // (T,R) (T,Dr) -> cache
  void append_index_key(int64_t layer, Tensor key);                   // (T,D) -> cache
  IndexQuery index_query(Tensor q, Tensor w);                         // (T,H,D) (T,H)
  Selection index_select(int64_t layer, const IndexQuery& query);

  // Rows of prompts up to some position: un-absorbed, where the kernels have it. Others: the three lines below, a few rows at a
  // time, because absorbed queries are the largest activations of the model.
  Tensor attention(int64_t layer, Tensor q_nope, Tensor q_rope, const MatrixView& kv_b, int64_t v_head_dim,
                   const Selection& selection, float scale);                 // -> (T,H·Dv)
  Tensor absorb(Tensor q_nope, const MatrixView& kv_b, int64_t v_head_dim);  // (T,H,Dn) -> (T,H,R)
  // Overwrites q_latent with the result. Row i is row first_row + i of the step.
  Tensor attend(int64_t layer, Tensor q_latent, Tensor q_rope, const Selection& selection, float scale,
                int64_t first_row = 0);
  Tensor project_values(Tensor o_latent, const MatrixView& kv_b, int64_t nope_dim, int64_t v_head_dim);  // -> (T,H·Dv)

  Routing route(const RouterSettings& settings, int64_t layer, Tensor logits, std::span<const float> bias);
  Tensor mlp(Tensor x, const MlpWeights& w);
  Tensor experts(Tensor x, const MlpWeights* shared, std::span<const MlpWeights> experts, const Routing& routing);

 private:
  // Rows per task of the row-wise operations: a row is tens of kilobytes of work, enough to pay for being handed out.
  static constexpr int64_t kRowGrain = 4;

  struct ExpertGroup;
  void compute_angles();
  InputRounding rounding_for(const MatrixView& w) const;
  // Scratch for `rows` packed rows; pack_rows fills it.
  PackedRows make_packed(RowFormat format, int64_t rows, int64_t k, Arena& arena) const;
  Tensor product(Tensor x, const MatrixView& w, InputRounding rounding);
  // Weight rows per task: whole tiles, so many that each thread has several tasks to take.
  int64_t rows_per_task(int64_t rows, int64_t row_bytes, int64_t input_rows) const;
  void trace_selection(int64_t layer, std::byte* packed, size_t packed_bytes, const IndexQuery& query, int32_t* index,
                       int32_t* count);
  void trace_attention(int64_t layer, Tensor q_nope, Tensor q_rope, const MatrixView& kv_b, int64_t v_head_dim,
                       const Selection& selection, float scale);
  void attend_prompt(int64_t layer, Tensor q_nope, Tensor q_rope, const MatrixView& kv_b, const Selection& selection,
                     int64_t first_row, float scale, Tensor o);
  struct KeyParts {
    int64_t count, size;
  };
  static KeyParts key_parts(int64_t count);
  struct PartResults {
    float* out;      // (parts, heads of a task, rank)
    float* log_sum;  // (parts, heads of a task)
  };
  void project_values_into(Tensor o_latent, const MatrixView& kv_b, int64_t nope_dim, Tensor y);
  Tensor run_groups(Tensor x, std::span<const ExpertGroup> groups);

  ThreadPool& pool_;
  const Kernels& kernels_;
  std::vector<Arena> worker_arenas_;
  std::vector<float> rope_cos_, rope_sin_;  // (T, rope/2)
};

}  // namespace fathom::cpu
