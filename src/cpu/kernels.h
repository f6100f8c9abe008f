// The inner loops that exist once per instruction set: a table of functions chosen at start.
// Each is defined by the reference of its operation in src/ops; the conformance tests run every table against it.
//
// Every result depends on its own row of input (and its own weight row, key or head) alone, and is summed in an order
// fixed by the shapes: the caller may cut the work anywhere, between any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu_features.h"
#include "base/memory.h"
#include "ops/indexer.h"
#include "ops/kv_cache.h"
#include "ops/linear.h"
#include "ops/rope.h"
#include "tensor/matrix.h"

namespace fathom::cpu {

// Rows are packed in groups of this many: tasks that pack begin at a multiple of it.
inline constexpr int64_t kPackGroup = 16;

// What a packed row holds.
enum class RowFormat {
  kF32,         // x, or x̂ where the table's unit multiplies float32 only
  kF32Words,    // the same, in the order and, for few rows, in the unit in which such a table sums FP8 weights
  kBf16,        // x̂ in BF16: rounded to BF16, or FP8 times a power of two
  kBf16Scaled,  // FP8 values in BF16, and a scale per group of 128
  kBf16Split,   // x in three BF16 pieces: exact inputs for BF16 weights, where the tables' unit multiplies BF16 only
};

// Rows of a product's input in the layout that the table's gemm wants.
struct PackedRows {
  RowFormat format = RowFormat::kF32;
  int64_t rows = 0, k = 0;
  std::byte* data = nullptr;  // packed_bytes(format, rows, k)
  float* scale = nullptr;     // (rows · ⌈k/128⌉), in the table's own order; only for kBf16Scaled
};

// Rows to pack: row i is row index[i] of x, or row i.
struct RowSource {
  const float* x = nullptr;
  int64_t stride = 0;
  const int32_t* index = nullptr;

  const float* row(int64_t i) const { return x + (index ? index[i] : i) * stride; }
};

// All rows of x times weight rows [n_begin, n_begin + n_count):
//   y[i · y_stride + j] = Σ_k x[i, k] · W[n_begin + j, k]
struct GemmArgs {
  PackedRows x;
  MatrixView w;
  int64_t n_begin = 0, n_count = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
  const std::byte* next = nullptr;  // what this thread reads after these rows, to be asked for early; null: unknown
};

// q_latent of one head: rows of q (m, nope) times weight rows [row_begin, row_begin + nope), summed over the rows:
//   y[i · y_stride + r] = Σ_d q[i · q_stride + d] · W[row_begin + d, r]
struct AbsorbArgs {
  const float* q = nullptr;
  int64_t q_stride = 0, m = 0, nope = 0;
  MatrixView w;  // FP8, BF16 or F32
  int64_t row_begin = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
  const std::byte* next = nullptr;  // as GemmArgs::next
};

// One query, some heads, some keys (ops/attention.h).
struct AttendArgs {
  const float* q_latent = nullptr;  // (heads, rank)
  int64_t q_latent_stride = 0;
  const float* q_rope = nullptr;  // (heads, rope)
  int64_t q_rope_stride = 0;
  int64_t heads = 0;
  KvRows kv;
  const int32_t* rows = nullptr;  // rising; null: rows [first, first + count)
  int64_t first = 0;
  int64_t count = 0;  // ≥ 1
  float scale = 1;
  float* out = nullptr;  // (heads, rank)
  int64_t out_stride = 0;
  float* log_sum = nullptr;  // (heads): log Σ_s e^(scaled score), by which results over parts of the keys are joined
};

// Queries against the first `count` keys of a cache block: score[i · 64 + s] of query i.
struct IndexScoreArgs {
  const void* const* queries = nullptr;  // (m), packed
  int64_t m = 0, heads = 0, dim = 0;
  const E4M3* codes = nullptr;  // (count, dim)
  const float* scales = nullptr;
  int64_t count = 0;
  float* score = nullptr;
  // 64 keys that this thread scores soon, for a kernel to ask for: with few heads and one query, keys pass in less time than memory
  // takes to answer. Null: none.
  const E4M3* next = nullptr;
};

// Un-absorbed attention (ops/attention.h): keys and values of a head are made from the latent rows, for many queries at
// once. A block of keys at a time, at most kPromptKeys; online softmax over the blocks.
inline constexpr int64_t kPromptKeys = 512;
inline constexpr int64_t kPromptPiece = 64;  // keys that a task packs
struct PromptShape {
  int64_t rank = 0, rope = 0, nope = 0, value = 0;
};

// Consecutive rows of one sequence, one head, one block of keys.
struct PromptArgs {
  PromptShape shape;
  const std::byte* queries = nullptr;  // (rows), each of PromptKernels::query_bytes
  int64_t rows = 0, first_position = 0;
  int64_t top_k = 0;  // keys that a row attends to if it sees more; 0: all
  // Of each row: bit s says whether it attends to position s; null: to all up to its own.
  const uint64_t* const* selected = nullptr;
  const std::byte* keys = nullptr;  // PromptKernels::key_bytes
  int64_t key_begin = 0;            // a multiple of kPromptKeys
  int64_t key_count = 0;
  MatrixView kv_b;
  int64_t row_begin = 0;  // of the head: W^UK, then W^UV
  float scale = 1;
  // State between blocks; written whole for key_begin = 0. The last block leaves the result in `out`.
  float *best = nullptr, *total = nullptr;  // (rows)
  float* out = nullptr;                     // (rows, value)
  int64_t out_stride = 0;
  bool last = false;
};

// Un-absorbed attention. Tables without it serve prompts in absorbed form too, at 3.4 times the arithmetic a pair.
struct PromptKernels {
  // From this position on, attending to 2,048 selected rows in absorbed form takes less time than making the keys and values of
  // all (docs/performance.md).
  int64_t unabsorbed_until;
  bool (*fits)(const PromptShape& shape, const MatrixView& kv_b);
  size_t (*key_bytes)(const PromptShape& shape);  // for a block of kPromptKeys
  // Rows [begin, end) of a block of the cache, begin a multiple of kPromptPiece -> packed; `keys` is the block's start.
  void (*pack_keys)(const KvRows& kv, int64_t begin, int64_t end, std::byte* keys);
  // A row's query -> packed.
  size_t (*query_bytes)(const PromptShape& shape);
  void (*pack_query)(const PromptShape& shape, const float* nope, const float* rope, std::byte* query);
  void (*attend)(const PromptArgs& args, Arena& scratch);
};

struct Kernels {
  Isa isa;

  // Matrix products.
  RowFormat (*row_format)(InputRounding rounding, DType weight);
  size_t (*packed_bytes)(RowFormat format, int64_t rows, int64_t k);
  void (*pack)(const PackedRows& out, InputRounding rounding, const RowSource& x, int64_t begin, int64_t end);
  void (*gemm)(const GemmArgs& args, Arena& scratch);
  int64_t gemm_rows;  // weight rows that a product of many inputs takes at once: fewer cost as much
  void (*absorb)(const AbsorbArgs& args, Arena& scratch);

  // Attention.
  void (*attend)(const AttendArgs& args, Arena& scratch);
  const PromptKernels* prompt = nullptr;  // tables without them attend in absorbed form everywhere
  // Indexer queries in the layout that the scoring loop wants.
  size_t (*index_query_bytes)(int64_t heads, int64_t dim);
  void (*pack_index_query)(const E4M3* codes, const float* weights, int64_t heads, int64_t dim, void* packed);
  void (*index_scores)(const IndexScoreArgs& args, Arena& scratch);
  // Appends to `out` the candidate keys of scores [0, count) that beat the threshold; returns how many. May write up to
  // 7 keys more than it counts.
  int64_t (*candidates)(const float* score, int64_t count, int64_t first_index, uint64_t threshold, uint64_t* out);
  // Moves the k largest of n unique keys (n ≥ k ≥ 1) to the front, in the order they are in, and returns the least of them.
  // scratch: 2 n + 16 keys.
  uint64_t (*keep_largest)(uint64_t* keys, int64_t n, int64_t k, uint64_t* scratch);

  // One row each.
  void (*rms_norm)(const float* x, const float* gain, int64_t d, float eps, float* y);
  void (*rope)(RopePairs pairs, const float* cos, const float* sin, int64_t half, float* x);
  void (*index_query)(const float* q, const float* w, int64_t heads, int64_t dim, E4M3* codes, float* weights);
  float (*index_key)(const float* k, int64_t dim, E4M3* codes);                       // -> scale
  void (*silu_product)(const float* gate, const float* up, int64_t count, float* y);  // y = silu(gate) · up
  void (*add_weighted)(float weight, const float* x, int64_t count, float* y);        // y += weight · x
};

const Kernels& kernels_for(Isa isa);

namespace portable {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
namespace amx {
extern const Kernels kKernels;
}

}  // namespace fathom::cpu
