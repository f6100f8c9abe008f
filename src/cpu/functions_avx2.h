// The AVX2 kernels, one file per group; the table that names them is in kernels_avx2.cpp.
#pragma once

#include "cpu/kernels.h"

namespace fathom::cpu::avx2 {

RowFormat row_format(InputRounding rounding, DType weight);
size_t packed_bytes(RowFormat format, int64_t rows, int64_t k);
void pack(const PackedRows& out, InputRounding rounding, const RowSource& x, int64_t begin, int64_t end);
void gemm(const GemmArgs& args, Arena& scratch);
void absorb(const AbsorbArgs& args, Arena& scratch);
void attend(const AttendArgs& args, Arena& scratch);
extern const PromptKernels kPromptKernels;
void pack_index_query(const E4M3* codes, const float* weights, int64_t heads, int64_t dim, void* packed);
void index_scores(const IndexScoreArgs& args, Arena& scratch);
int64_t candidates(const float* score, int64_t count, int64_t first_index, uint64_t threshold, uint64_t* out);
uint64_t keep_largest(uint64_t* keys, int64_t n, int64_t k, uint64_t* scratch);
void silu_product(const float* gate, const float* up, int64_t count, float* y);

}  // namespace fathom::cpu::avx2
