// Linear layer: y = x̂ Wᵀ.
//   y[t,n] = Σ_k x̂[t,k] · W[n,k]
// x̂ is how the input is rounded before it is multiplied:
//   kBf16   x̂ = bf16(x)                                   FP8 and BF16 weights in w8a16, the default
//   kFp8    x̂ = e4m3 per 1×128 group times its scale       FP8 weights in w8a8 (DeepSeek-V3 report §3.3)
//   kExact  x̂ = x                                          router, indexer weights, head: where rounding is felt most
// shapes    x (T,K) f32 · W (N,K) FP8 with 128×128 block scales, BF16 or F32 · y (T,N) f32
// numerics  f32 accumulation. y[t,n] depends on row t of x and row n of W alone: not on T, on how rows are grouped or
// on
//           the number of threads. F32 weights always use x̂ = x.
#pragma once

#include <vector>

#include "tensor/matrix.h"
#include "tensor/tensor.h"

namespace fathom {

enum class InputRounding { kExact, kBf16, kFp8, kFp8Pow2 };  // Pow2: group scales rounded up to powers of two (ue8m0)

// What a checkpoint is run with.
enum class Numerics {
  kW8A16,  // activations in BF16: closest to the trained function
  kW8A8,   // activations of FP8 layers in FP8: the reference deployment
};

namespace ref {
// Rounds a row in place as x̂ above.
void round_input(InputRounding rounding, float* x, int64_t count);
void linear(InputRounding rounding, Tensor x, const MatrixView& w, Tensor y);
}  // namespace ref

}  // namespace fathom
