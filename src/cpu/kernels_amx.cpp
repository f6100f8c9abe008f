#include "cpu/functions_amx.h"
#include "cpu/functions_avx512.h"

namespace fathom::cpu::amx {

// What works on single rows is AVX-512's.
const Kernels kKernels = {
    .isa = Isa::kAmx,
    .row_format = row_format,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .gemm = gemm,
    .gemm_rows = 32,
    .absorb = absorb,
    .attend = attend,
    .prompt = &kPromptKernels,
    .index_query_bytes = index_query_bytes,
    .pack_index_query = pack_index_query,
    .index_scores = index_scores,
    .candidates = avx512::candidates,
    .keep_largest = avx512::keep_largest,
    .rms_norm = avx512::rms_norm,
    .rope = avx512::rope,
    .index_query = avx512::index_query,
    .index_key = avx512::index_key,
    .silu_product = avx512::silu_product,
    .add_weighted = avx512::add_weighted,
};

}  // namespace fathom::cpu::amx
