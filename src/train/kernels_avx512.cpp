#if defined(__x86_64__)

#include "train/kernels_impl.h"

namespace fathom::train {

namespace {

// Two BF16 in a word; the processor sums their products in float32.
struct Bf16 {
  static constexpr int kGroup = 2;
  using W = __m512i;
  FATHOM_INLINE static W load(const uint32_t* x) { return _mm512_loadu_si512(x); }
  FATHOM_INLINE static W broadcast(const uint32_t* x) { return _mm512_set1_epi32(static_cast<int>(*x)); }
  FATHOM_INLINE static V madd(W a, W b, V c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  FATHOM_INLINE static V rounded(V x) {
    const __m256i bits = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  FATHOM_INLINE static void store_row(uint32_t* to, V x, V y) {
    _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(y, x)));
  }
  FATHOM_INLINE static void store_pair(uint32_t* to, V x, V y) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(y, x))));
  }
};

}  // namespace

namespace avx512 {
const Kernels kFloatKernels = make_kernels<Float>();
const Kernels kBf16Kernels = make_kernels<Bf16>();
}  // namespace avx512

}  // namespace fathom::train

#endif
