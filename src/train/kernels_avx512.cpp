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
  FATHOM_INLINE static W broadcast_two(const uint32_t* x) {
    int64_t two;
    std::memcpy(&two, x, sizeof two);
    return _mm512_set1_epi64(two);
  }
  FATHOM_INLINE static void interleave(const uint32_t* x, const uint32_t* y, uint32_t* to) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16)), a = load(x), b = load(y);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, low, b));
    _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(a, high, b));
  }
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
