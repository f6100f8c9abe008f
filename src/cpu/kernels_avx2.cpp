// What is left to the portable loops takes no time worth writing of; compiled for AVX2, they are vectors too.
#include "cpu/functions_avx2.h"
#include "cpu/portable_loops.h"

namespace fathom::cpu::avx2 {

const Kernels kKernels = {
    .isa = Isa::kAvx2,
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
    .candidates = candidates,
    .keep_largest = keep_largest,
    .rms_norm = rms_norm,
    .rope = rope,
    .index_query = ref::index_query,
    .index_key = ref::index_key,
    .silu_product = silu_product,
    .add_weighted = add_weighted,
};

}  // namespace fathom::cpu::avx2
