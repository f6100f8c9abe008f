// The fused operations on plain arrays: packing, products, and the division of work among threads.
// make_fused_functions() wraps them for autograd. Shapes as in functions.h; every array is contiguous. Work is cut into
// pieces that depend on the shapes alone, and sums over pieces run in their order, so that results are the same bits
// for any number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "train/kernels.h"

namespace fathom::train {

// What all operations of one Functions share.
struct Workspace {
  Workspace(int threads, const Kernels& table)
      : kernels(table), pool(threads), of_worker(static_cast<size_t>(pool.threads())) {}

  // Calls body(i, scratch of the thread) for i in [0, count), each released after the call.
  template <typename Body>
  void for_each(int64_t count, Body&& body) {
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int worker) {
      Arena& scratch = of_worker[static_cast<size_t>(worker)];
      for (int64_t i = begin; i < end; ++i) {
        const ArenaScope scope(scratch);
        body(i, scratch);
      }
    });
  }

  const Kernels& kernels;
  ThreadPool pool;
  Arena arena;
  std::vector<Arena> of_worker;
};

template <typename T>
T* take(Arena& arena, int64_t count) {
  return arena.allocate<T>(static_cast<size_t>(count));
}
inline int64_t pieces(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Panels of a whole matrix, made by all threads.
struct Packed {
  const uint32_t* data;
  int64_t panel_words;
  const uint32_t* panel(int64_t i) const { return data + i * panel_words; }
};
Packed pack_transposed(Workspace& ws, const RowsView& x);  // of xᵀ, summed over x's columns
Packed pack_panels(Workspace& ws, const RowsView& x);      // of x, summed over its rows

// ---- linear: x (T, K), w (N, K), y (T, N)
void linear(Workspace& ws, const float* x, const float* w, int64_t rows, int64_t k, int64_t n, float* y);
void linear_input_gradient(Workspace& ws, const float* dy, const float* w, int64_t rows, int64_t k, int64_t n,
                           float* dx);
void linear_weight_gradient(Workspace& ws, const float* dy, const float* x, int64_t rows, int64_t k, int64_t n,
                            float* dw);

// ---- experts
struct ExpertsShape {
  int64_t rows, dim, hidden, experts, per_row;  // T, D, F, E, k
};
struct ExpertsArgs {
  ExpertsShape shape;
  const float *x, *gate, *up, *down;
  const int32_t* expert;  // null: one expert, for every row, with weight 1
  const float* weight;
};
struct ExpertsGradients {
  float *x, *gate, *up, *down, *weight;  // weight: null without experts
};
void experts(Workspace& ws, const ExpertsArgs& args, float* y);
void experts_gradient(Workspace& ws, const ExpertsArgs& args, const float* dy, const ExpertsGradients& d);

// ---- attention
struct KeyArgs {
  int64_t rows;             // T
  const int32_t* begin;     // (T)
  const int32_t* selected;  // (T, top_k), or null: all
  int64_t top_k;
};
struct AttentionShape {
  int64_t heads, groups, key_dim, value_dim;  // H, G, Dk, Dv

  int64_t rows_per_token() const { return heads / groups; }
  // Of q or out, between the rows of one group: its heads follow one another, or, with a head for each group, its
  // tokens do.
  int64_t row_stride(int64_t dim) const { return groups == 1 ? dim : heads * dim; }
};
struct AttentionArgs {
  AttentionShape shape;
  KeyArgs keys;
  const float *q, *k, *v;
  double scale;
};
void attention(Workspace& ws, const AttentionArgs& args, float* out, float* lse);
void attention_gradient(Workspace& ws, const AttentionArgs& args, const float* out, const float* lse, const float* dout,
                        float* dq, float* dk, float* dv);

// The same where all heads share the keys that a token selects (fused_selected.cpp); the others call them.
void attention_selected(Workspace& ws, const AttentionArgs& args, float* out, float* lse);
void attention_selected_gradient(Workspace& ws, const AttentionArgs& args, const float* out, const float* lse,
                                 const float* dout, float* dq, float* dk, float* dv);

// ---- indexer
struct IndexArgs {
  KeyArgs keys;
  int64_t heads, dim;
  const float *q, *k, *w;
};
void index_select(Workspace& ws, const IndexArgs& args, int64_t top_k, int32_t* selected);

struct IndexLossArgs {
  IndexArgs index;
  AttentionShape attention;  // value_dim is not used
  const float *attn_q, *attn_k, *lse;
  double scale;
  int64_t top_k;
  const float* row_weight;
};
// -> Σ kl; recall (T); gradients of index.q, k, w, or none of them (null)
float index_loss(Workspace& ws, const IndexLossArgs& args, float* recall, float* dq, float* dk, float* dw);

float index_loss_selected(Workspace& ws, const IndexLossArgs& args, float* recall, float* dq, float* dk, float* dw);

// ---- the rest
struct CrossEntropyArgs {
  int64_t rows, dim, vocabulary;
  const float *h, *head;
  const int64_t* target;
  const float* weight;
};
// -> the loss; gradients of h and head, or neither (null)
float cross_entropy(Workspace& ws, const CrossEntropyArgs& args, float* dh, float* dhead);

void rms_norm(Workspace& ws, const float* x, const float* gain, double eps, int64_t rows, int64_t cols, float* y,
              float* inverse);
void rms_norm_gradient(Workspace& ws, const float* x, const float* gain, const float* inverse, const float* dy,
                       int64_t rows, int64_t cols, float* dx, float* dgain);

}  // namespace fathom::train
