// The AMX kernels, one file per group; the table that names them is in kernels_amx.cpp.
#pragma once

#include "cpu/kernels.h"

namespace fathom::cpu::amx {

RowFormat row_format(InputRounding rounding, DType weight);
size_t packed_bytes(RowFormat format, int64_t rows, int64_t k);
void pack(const PackedRows& out, InputRounding rounding, const RowSource& x, int64_t begin, int64_t end);
// Weight rows [n_begin, n_begin + count), count ≤ 256, times all rows of x: tiles of (16 weight rows, 16 input rows).
// What lies in a tile beyond the last weight row is zero, beyond the last input row undefined.
struct ProductTiles {
  const float* data = nullptr;  // [pair of groups of 16 input rows][strip of 16 weight rows][group of the pair][16][16]
  int64_t strips = 0;
  const float* at(int64_t group, int64_t strip) const {
    return data + ((group / 2 * strips + strip) * 2 + group % 2) * 256;
  }
};
ProductTiles product_tiles(const PackedRows& x, const MatrixView& w, int64_t n_begin, int64_t count, Arena& scratch);
void gemm(const GemmArgs& args, Arena& scratch);
void absorb(const AbsorbArgs& args, Arena& scratch);
void attend(const AttendArgs& args, Arena& scratch);
extern const PromptKernels kPromptKernels;
size_t index_query_bytes(int64_t heads, int64_t dim);
void pack_index_query(const E4M3* codes, const float* weights, int64_t heads, int64_t dim, void* packed);
void index_scores(const IndexScoreArgs& args, Arena& scratch);

}  // namespace fathom::cpu::amx
