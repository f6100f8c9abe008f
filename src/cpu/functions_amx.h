// The AMX kernels, one file per group; the table that names them is in kernels_amx.cpp.
#pragma once

#include "cpu/kernels.h"

namespace fathom::cpu::amx {

RowFormat row_format(InputRounding rounding, DType weight);
size_t packed_bytes(RowFormat format, int64_t rows, int64_t k);
void pack(const PackedRows& out, InputRounding rounding, const RowSource& x, int64_t begin, int64_t end);
void gemm(const GemmArgs& args, Arena& scratch);
void absorb(const AbsorbArgs& args, Arena& scratch);
void attend(const AttendArgs& args, Arena& scratch);
size_t index_query_bytes(int64_t heads, int64_t dim);
void pack_index_query(const E4M3* codes, const float* weights, int64_t heads, int64_t dim, void* packed);
void index_scores(const void* const* packed, int64_t m, int64_t heads, int64_t dim, const E4M3* codes,
                  const float* scales, int64_t count, float* score, Arena& scratch);

}  // namespace fathom::cpu::amx
