#include "cpu/functions_avx512.h"
#include "cpu/packing.h"

namespace fathom::cpu::avx512 {

const Kernels kKernels = {
    .isa = Isa::kAvx512,
    .row_format = row_format,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .gemm = gemm,
    .gemm_rows = 64,
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
    .index_query = index_query,
    .index_key = index_key,
    .silu_product = silu_product,
    .add_weighted = add_weighted,
};

}  // namespace fathom::cpu::avx512
