// What the fused operations are made of: products of packed operands, and what happens to a tile between two products.
//
// A packed operand is made of 32-bit words; a word holds `group` consecutive elements of the dimension that is summed
// over: two BF16, or one float32. Two layouts, each usable as left operand, the second as right operand too:
//   rows    [row][word]                          summed over the columns; a row takes row_words() words
//   panels  [panel of 64 columns][word][column]  summed over the rows
// Tiles are float32 [row][64], of 64 keys, or a stride apart. A mask is a bit for each of 64 keys. Every function
// is deterministic, and a row's result does not depend on the rows around it.
#pragma once

#include <cstdint>

#include "base/cpu_features.h"

namespace fathom::train {

inline constexpr int64_t kPanel = 64;
inline constexpr int64_t kHeadLanes = 8;  // heads that are computed together over selected keys

// A float32 matrix whose row i is at data + index[i] · stride, or data + i · stride without an index.
struct RowsView {
  const float* data;
  int64_t stride;
  int64_t rows, cols;
  const int32_t* index = nullptr;

  const float* row(int64_t i) const { return data + (index ? index[i] : i) * stride; }
};

struct ProductArgs {
  const uint32_t* a;  // element (m, w) at a[m · a_row + w · a_word]
  int64_t a_row, a_word;
  const uint32_t* b;  // panels, panel_words apart
  int64_t panel_words;
  int64_t words;  // of the sum
  int64_t m, n;
  float* c;  // (m, n), rows c_stride apart
  int64_t c_stride;
  bool accumulate;  // c += a·b instead of c = a·b
};

// Softmax of a block of query rows over the keys, 64 · panels at a time; `maximum` starts at kLowest and `total` at 0.
inline constexpr float kLowest = -1e30f;  // finite, so that a row without keys so far has no ∞ − ∞
struct SoftmaxArgs {
  const float* scores;  // (rows, panels · 64)
  int64_t rows, rows_per_token, panels;
  const uint64_t* mask;  // [panel][token], mask_stride words between panels
  int64_t mask_stride;
  float scale;
  float *maximum, *total;  // (rows), updated
  float* correction;       // (rows): what earlier sums are to be multiplied by
  uint32_t* out;           // rows layout, out_stride words between rows: exp(scale · scores − maximum)
  int64_t out_stride;
};

struct AttentionGradientArgs {
  const float *scores, *dp;  // (rows, 64): q·k, dout·v
  int64_t rows, rows_per_token;
  const uint64_t* mask;  // [token]
  float scale;
  const float *lse, *delta;  // rows lse_stride apart; delta (rows): Σ dout · out
  int64_t lse_stride;
  uint32_t* p_panel;   // one panel, summed over the query rows
  uint32_t* ds_panel;  // the same: scale · p · (dp − delta)
  uint32_t* ds_rows;   // rows layout, summed over the keys
};

struct Kernels {
  int group;

  int64_t words(int64_t elements) const { return (elements + group - 1) / group; }
  // Room for a packed row: a multiple of 16 words, zeros behind the last.
  int64_t row_words(int64_t elements) const { return (words(elements) + 15) / 16 * 16; }

  // -> rows layout
  void (*pack_rows)(const RowsView& x, uint32_t* out, int64_t out_stride);
  // -> panels of x, summed over x's rows; panel_words apart. The last word of an odd number of rows is filled with
  // zeros.
  void (*pack_panels)(const RowsView& x, uint32_t* out, int64_t panel_words);
  // At most 64 rows -> one panel of xᵀ, row_words(cols) words deep, summed over x's columns; zeros for rows that are
  // not there.
  void (*pack_transposed)(const RowsView& x, uint32_t* out);

  void (*product)(const ProductArgs& args);

  // Attention.
  void (*softmax)(const SoftmaxArgs& args);
  void (*attention_gradient)(const AttentionGradientArgs& args);
  // p (tokens, 64), p_stride between tokens: += Σ over the token's rows of exp(scale · scores − lse); masked keys:
  // nothing.
  void (*add_probabilities)(const float* scores, int64_t tokens, int64_t rows_per_token, const uint64_t* mask,
                            float scale, const float* lse, int64_t lse_token, int64_t lse_row, float* p,
                            int64_t p_stride);

  // Indexer. products (tokens · heads, 64), w (tokens, heads).
  // scores (tokens, 64), scores_stride between tokens: Σ_h w · relu(products); −∞ for masked keys.
  void (*index_scores)(const float* products, int64_t tokens, int64_t heads, const float* w, const uint64_t* mask,
                       float* scores, int64_t scores_stride);
  // From ds (tokens, 64): dw (tokens, heads) += Σ_s ds · relu(products); ds · w where products > 0, in both layouts.
  void (*index_gradient)(const float* products, int64_t tokens, int64_t heads, const float* w, const float* ds,
                         int64_t ds_stride, float* dw, uint32_t* dq_rows, uint32_t* dq_panel);
  // scores, p (count) -> scores becomes weight · (softmax(scores) − p / Σ p), p becomes p / Σ p; returns KL(p ‖
  // softmax). −∞ scores are keys outside of the set; count is a multiple of 64.
  float (*index_softmax)(float* scores, float* p, int64_t count, float weight);

  // Over the keys that one token selects, for up to eight heads that share them: lanes are heads, a register holds two
  // keys. The numbers of `padded` keys are computed, a multiple of 16; those from `count` on count for nothing. Rows
  // of keys are packed (rows layout), row index[i] of them `stride` words apart. Arrays of a key and head are
  // [key][8] float32.
  //   lanes   [word pair][head][2]: the heads' own rows, zeros for heads that are not there
  //   keys    [word][8]: summed over the keys, a word is a group of them; a left operand with a_row 1, a_word 8
  // out = keys · lanes, summed over `words` of them, an even number.
  void (*lane_products)(const uint32_t* keys, int64_t stride, const int32_t* index, int64_t padded,
                        const uint32_t* lanes, int64_t words, float* out);
  // -> panels of the selected rows, summed over them.
  void (*gather_panels)(const uint32_t* rows, int64_t stride, const int32_t* index, int64_t padded, int64_t cols,
                        uint32_t* out, int64_t panel_words);
  // maximum, total (8): of scale · scores, of exp(scale · scores − maximum), which goes to `out`, layout keys.
  void (*lane_softmax)(const float* scores, int64_t count, int64_t padded, float scale, float* maximum, float* total,
                       uint32_t* out);
  // p = exp(scale · scores − lse) and ds = scale · p · (dp − delta), rows layout of [key][8]; ds in layout keys too.
  void (*lane_gradient)(const float* scores, const float* dp, int64_t count, int64_t padded, float scale,
                        const float* lse, const float* delta, uint32_t* p_rows, uint32_t* ds_rows, uint32_t* ds_keys);
  // p (padded) += Σ over the heads of exp(scale · scores − lse)
  void (*lane_probabilities)(const float* scores, int64_t count, int64_t heads, float scale, const float* lse,
                             float* p);
  // scores (padded) += Σ_h w · relu(products); w (8)
  void (*lane_index_scores)(const float* products, int64_t padded, const float* w, float* scores);
  // From ds (padded), as index_gradient: dw (8) = Σ_s ds · relu(products); ds · w where products > 0.
  void (*lane_index_gradient)(const float* products, int64_t padded, const float* w, const float* ds, float* dw,
                              uint32_t* d_rows, uint32_t* d_keys);
  // c (·, cols): row index[i] += a_i · b; a rows a_row words apart, b panels; no index twice.
  void (*scatter_product)(const uint32_t* a, int64_t a_row, int64_t words, const uint32_t* b, int64_t panel_words,
                          int64_t count, int64_t cols, const int32_t* index, float* c);

  // Feed-forward; gate, up, da (rows, cols), stride floats apart.
  // weight[r] · silu(gate) · up -> rows layout
  void (*swiglu)(const float* gate, const float* up, int64_t rows, int64_t cols, int64_t stride, const float* weight,
                 uint32_t* out, int64_t out_stride);
  // From da = d(loss)/d(silu(gate) · up) without the weight: gradients of gate and up (in place, weight included) and
  // of the weight (rows); da becomes weight · silu(gate) · up.
  void (*swiglu_gradient)(float* gate, float* up, float* da, int64_t rows, int64_t cols, int64_t stride,
                          const float* weight, float* dweight);

  // A row of logits (count) -> weight · (softmax − [target]), in place; returns −log softmax[target].
  float (*cross_entropy)(float* logits, int64_t count, int64_t target, float weight);

  // y = x / sqrt(mean(x²) + eps) · gain over rows; inverse (rows): 1 / sqrt(…).
  void (*rms_norm)(const float* x, const float* gain, double eps, int64_t rows, int64_t cols, float* y, float* inverse);
  // dx, and dgain (cols) += .
  void (*rms_norm_gradient)(const float* x, const float* gain, const float* inverse, const float* dy, int64_t rows,
                            int64_t cols, float* dx, float* dgain);
  // y += x, y ·= factor, Σ x·y with x rounded as an operand of a product is: then delta is the Σ p · dp of its row, and
  // a row that attends to one key has no gradient
  void (*add)(float* y, const float* x, int64_t count);
  void (*multiply)(float* y, float factor, int64_t count);
  float (*dot)(const float* x, const float* y, int64_t count);
};

// The best that this processor has, up to `best`: AVX-512 with BF16 or float32 products; AVX2 or plain C++ with float32
// ones.
const Kernels& train_kernels(Isa best, bool bf16);
namespace portable {
extern const Kernels kFloatKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kFloatKernels;
}
namespace avx512 {
extern const Kernels kFloatKernels, kBf16Kernels;
}
#endif

}  // namespace fathom::train
