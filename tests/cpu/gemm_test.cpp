// Conformance of the matrix products: pack, gemm, absorb; every instruction set against src/ops.
// Inputs end at a page that faults, so that reading past a row, a scale or a matrix ends the test.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "cpu/kernels.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "support/compare.h"
#include "support/guarded.h"
#include "support/isa.h"
#include "support/random.h"

namespace fathom::cpu {
namespace {

// A weight whose bytes and scales end at guard pages.
struct GuardedMatrix {
  // pow2: scales are powers of two, as in V3.2-Exp; otherwise any positive value, over six orders of magnitude.
  GuardedMatrix(TestRandom& random, DType dtype, int64_t rows, int64_t cols, bool pow2 = false)
      : bytes(static_cast<size_t>(rows * cols) * dtype_size_bytes(dtype)),
        scale(static_cast<size_t>((rows + 127) / 128 * ((cols + 127) / 128))) {
    for (int64_t i = 0; i < rows * cols; ++i) {
      const size_t k = static_cast<size_t>(i);
      if (dtype == DType::kF8E4M3) {
        reinterpret_cast<E4M3*>(bytes.data())[k] = random.e4m3();
      } else if (dtype == DType::kBF16) {
        reinterpret_cast<BF16*>(bytes.data())[k] = to_bf16(random.normal());
      } else {
        reinterpret_cast<float*>(bytes.data())[k] = random.normal();
      }
    }
    for (float& s : scale.span())
      s = pow2 ? std::ldexp(1.0f, static_cast<int>(random.below(20)) - 13)
               : static_cast<float>(std::exp(random.uniform(-9, 5)));
    view = {dtype, rows, cols, bytes.data(), nullptr};
    if (dtype != DType::kF8E4M3) return;
    view.scale = scale.data();
    view.pow2_scale = all_pow2(scale.data(), static_cast<int64_t>(scale.size()));
  }
  Guarded<std::byte> bytes;
  Guarded<float> scale;
  MatrixView view;
};

// Packed rows that end at guard pages, and the same rows as the reference rounds them.
struct GuardedRows {
  // index: which rows of x; none: all.
  GuardedRows(const Kernels& kernels, InputRounding rounding, DType weight, const std::vector<float>& x, int64_t m,
              int64_t k, const std::vector<int32_t>& index = {})
      : format(kernels.row_format(rounding, weight)),
        rows(index.empty() ? m : static_cast<int64_t>(index.size())),
        data(kernels.packed_bytes(format, rows, k)),
        scale(format == RowFormat::kBf16Scaled ? static_cast<size_t>(rows * ((k + 127) / 128)) : 0) {
    const Guarded<float> in(x);
    const Guarded<int32_t> which(index);
    packed = {format, rows, k, data.data(), scale.size() ? scale.data() : nullptr};
    for (int64_t i = 0; i < rows; i += kPackGroup)
      kernels.pack(packed, rounding, {in.data(), k, index.empty() ? nullptr : which.data()}, i,
                   std::min(i + kPackGroup, rows));
    EXPECT_TRUE(data.intact() && scale.intact());
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t t = index.empty() ? i : index[static_cast<size_t>(i)];
      rounded.insert(rounded.end(), x.begin() + t * k, x.begin() + (t + 1) * k);
      ref::round_input(rounding, rounded.data() + i * k, k);
    }
  }
  RowFormat format;
  int64_t rows;
  Guarded<std::byte> data;
  Guarded<float> scale;
  std::vector<float> rounded;
  PackedRows packed;
};

// What float32 may lose against doubles in a sum of K products: each lane adds K/16 of them one after the other (with
// two roundings of the scales and sixteen lanes added in the end), each addition rounds by at most 2^-24 of the sum of
// the absolute products. A single element of weight or input that is wrong or missing moves the sum by about 1/K of
// that, a hundred times as much.
double summation_bound(int64_t k) { return (static_cast<double>(k) / 16 + 16) * 0x1p-24; }

struct Product {
  std::vector<float> y, bound;
};

// rows (m, K) already rounded, times all rows of w, in doubles; and how far a float32 sum may be off.
Product product(const std::vector<float>& x, int64_t m, const MatrixView& w) {
  Product p;
  for (int64_t t = 0; t < m; ++t) {
    for (int64_t n = 0; n < w.rows; ++n) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < w.cols; ++k) {
        const double term = static_cast<double>(x[static_cast<size_t>(t * w.cols + k)]) * w.at(n, k);
        sum += term;
        size += std::fabs(term);
      }
      p.y.push_back(static_cast<float>(sum));
      p.bound.push_back(static_cast<float>(size * summation_bound(w.cols) + 1e-37));
    }
  }
  return p;
}

class Gemm : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { FATHOM_SKIP_UNLESS_SUPPORTED(GetParam()); }
  const Kernels& kernels() const { return kernels_for(GetParam()); }

  // All weight rows, panel by panel, into an output that ends at a guard page.
  std::vector<float> gemm(const PackedRows& x, const MatrixView& w, int64_t panel = 48) {
    const Guarded<float> y(static_cast<size_t>(x.rows * w.rows));
    for (int64_t n = 0; n < w.rows; n += panel) {
      const std::byte* next = n + panel < w.rows ? w.row(n + panel) : nullptr;
      kernels().gemm({x, w, n, std::min(panel, w.rows - n), y.data() + n, w.rows, next}, scratch_);
    }
    EXPECT_TRUE(y.intact());
    return {y.data(), y.data() + y.size()};
  }
  Arena scratch_;
};

constexpr int64_t kWidths[] = {1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 576, 1536, 1563};

TEST_P(Gemm, EveryShapeAndDtypeAgainstTheReference) {
  TestRandom random(2);
  for (int64_t k : kWidths) {
    for (auto [dtype, pow2] : {std::pair{DType::kF8E4M3, false}, {DType::kF8E4M3, true}, {DType::kBF16, false}}) {
      const int64_t n = k > 500 ? 35 : 130 + random.below(4);  // past a block of 128 rows; no multiple of 4
      const GuardedMatrix w(random, dtype, n, k, pow2);
      for (int64_t m : {1, 2, 3, 5, 6, 7, 10, 12, 13, 16, 17, 23, 50}) {
        for (auto rounding : {InputRounding::kBf16, InputRounding::kFp8, InputRounding::kFp8Pow2}) {
          if (rounding != InputRounding::kBf16 && (dtype == DType::kBF16 || m == 5)) continue;
          auto x = random.normals(m * k);
          for (int64_t i = 0; i < m * k; ++i)  // rows and groups of very different size
            x[static_cast<size_t>(i)] *= std::ldexp(1.0f, static_cast<int>((i / k * 3 + i % k / 128 * 5) % 17) - 8);
          if (k > 300) std::fill_n(x.begin() + 128, 128, 0.0f);  // a group of zeros
          const GuardedRows rows(kernels(), rounding, dtype, x, m, k);
          const Product expected = product(rows.rounded, m, w.view);
          ASSERT_TRUE(close_rows(gemm(rows.packed, w.view), expected.y, m, n, {.bound = expected.bound}))
              << dtype_name(dtype) << " m " << m << " n " << n << " k " << k << " rounding "
              << static_cast<int>(rounding);
        }
      }
    }
  }
}

// The reference operation itself, so that the test's own product above is not all there is.
TEST_P(Gemm, AgainstRefLinear) {
  TestRandom random(3);
  const int64_t m = 4, n = 70, k = 300;
  const GuardedMatrix w(random, DType::kF8E4M3, n, k);
  auto x = random.normals(m * k);
  for (auto rounding : {InputRounding::kBf16, InputRounding::kFp8, InputRounding::kFp8Pow2}) {
    const GuardedRows rows(kernels(), rounding, DType::kF8E4M3, x, m, k);
    std::vector<float> expected(static_cast<size_t>(m * n));
    ref::linear(rounding, Tensor::matrix(x.data(), m, k), w.view, Tensor::matrix(expected.data(), m, n));
    // Rounding of sums in float32, relative to a row of 70 outputs: 1e-6 is some ten roundings.
    EXPECT_TRUE(close_rows(gemm(rows.packed, w.view), expected, m, n, {.relative = 1e-6}));
  }
}

TEST_P(Gemm, EveryPanelWidth) {
  TestRandom random(4);
  const int64_t m = 3, k = 200, n = 67;
  for (bool pow2 : {false, true}) {
    const GuardedMatrix w(random, DType::kF8E4M3, n, k, pow2);
    const GuardedRows rows(kernels(), InputRounding::kBf16, DType::kF8E4M3, random.normals(m * k), m, k);
    const auto whole = gemm(rows.packed, w.view, n);
    for (int64_t panel = 1; panel < n; ++panel)
      EXPECT_TRUE(same_bits(gemm(rows.packed, w.view, panel), whole, n)) << "panels of " << panel;
  }
}

// Panels are cut along K and along the rows by sizes that only large matrices reach.
TEST_P(Gemm, LargeMatricesCutIntoPanels) {
  TestRandom random(10);
  for (auto [m, n, k] : {std::array<int64_t, 3>{60, 300, 1100}, {9, 150, 1100}, {2, 70, 8300}}) {
    const GuardedMatrix w(random, DType::kF8E4M3, n, k, true);
    const GuardedRows rows(kernels(), InputRounding::kBf16, DType::kF8E4M3, random.normals(m * k), m, k);
    const Product expected = product(rows.rounded, m, w.view);
    const auto whole = gemm(rows.packed, w.view, n);
    ASSERT_TRUE(close_rows(whole, expected.y, m, n, {.bound = expected.bound}));
    EXPECT_TRUE(same_bits(gemm(rows.packed, w.view, 96), whole, n));
  }
}

// A row alone, in any batch and at any place of it, has the same bits.
TEST_P(Gemm, RowsDoNotDependOnTheirNeighbours) {
  TestRandom random(5);
  for (auto [dtype, pow2] : {std::pair{DType::kF8E4M3, false}, {DType::kF8E4M3, true}, {DType::kBF16, false}}) {
    for (int64_t k : {33, 129, 576, 1200}) {
      const int64_t m = 50, n = 66;
      const GuardedMatrix w(random, dtype, n, k, pow2);
      for (auto rounding : {InputRounding::kBf16, InputRounding::kFp8, InputRounding::kExact}) {
        if (rounding == InputRounding::kExact && dtype != DType::kBF16) continue;
        const auto x = random.normals(m * k);
        const auto of = [&, weight = dtype](const std::vector<int32_t>& index) {
          return gemm(GuardedRows(kernels(), rounding, weight, x, m, k, index).packed, w.view);
        };
        std::vector<float> alone;
        for (int32_t t = 0; t < m; ++t) {
          const auto row = of({t});
          alone.insert(alone.end(), row.begin(), row.end());
        }
        for (int64_t batch = 2; batch <= m; ++batch)
          ASSERT_TRUE(same_bits(gemm(GuardedRows(kernels(), rounding, dtype, x, batch, k).packed, w.view),
                                std::span(alone).first(static_cast<size_t>(batch * n)), n))
              << dtype_name(dtype) << " K " << k << " batch of " << batch;
        // Any order, with repetitions.
        const std::vector<int32_t> order = {9, 0, 13, 13, 4, 2, 9, 7, 1};
        std::vector<float> expected;
        for (int32_t t : order) expected.insert(expected.end(), alone.begin() + t * n, alone.begin() + (t + 1) * n);
        ASSERT_TRUE(same_bits(of(order), expected, n));
      }
    }
  }
}

TEST_P(Gemm, OutputsOfOtherColumnsAreLeftAlone) {
  TestRandom random(6);
  const int64_t k = 70, m = 7;
  const GuardedMatrix w(random, DType::kBF16, 12, k);
  const GuardedRows rows(kernels(), InputRounding::kBf16, DType::kBF16, random.normals(m * k), m, k);
  std::vector<float> y(static_cast<size_t>(m * 9), -7.0f);
  kernels().gemm({rows.packed, w.view, 3, 5, y.data() + 2, 9}, scratch_);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i] == -7.0f, i % 9 < 2 || i % 9 >= 7) << i;
}

TEST_P(Gemm, ExactProducts) {
  TestRandom random(7);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int64_t k : kWidths) {
      const int64_t n = 37;
      const GuardedMatrix w(random, dtype, n, k);
      for (int64_t m : {1, 2, 7, 20, 50}) {
        const auto x = random.normals(m * k);
        const GuardedRows rows(kernels(), InputRounding::kExact, dtype, x, m, k);
        const Product expected = product(x, m, w.view);
        ASSERT_TRUE(close_rows(gemm(rows.packed, w.view, 8), expected.y, m, n, {.bound = expected.bound}))
            << "m " << m << " K " << k;
      }
    }
  }
}

// NaN and infinity must come through: a NaN that a kernel swallows is a fault that no later test can see.
TEST_P(Gemm, NanAndInfinityComeThrough) {
  TestRandom random(8);
  const int64_t k = 712, n = 8;
  for (auto [dtype, pow2] : {std::pair{DType::kF8E4M3, false}, {DType::kF8E4M3, true}, {DType::kBF16, false}}) {
    const GuardedMatrix w(random, dtype, n, k, pow2);
    for (int64_t m : {1, 3}) {
      for (float poison : {std::nanf(""), INFINITY}) {
        auto x = random.normals(m * k);
        x[150] = poison;
        const auto y = gemm(GuardedRows(kernels(), InputRounding::kBf16, dtype, x, m, k).packed, w.view);
        for (size_t j = 0; j < static_cast<size_t>(n); ++j)
          EXPECT_TRUE(!std::isfinite(y[j]) || w.view.at(static_cast<int64_t>(j), 150) == 0) << j;
        for (size_t j = static_cast<size_t>(n); j < y.size(); ++j) EXPECT_TRUE(std::isfinite(y[j]));
      }
    }
    if (dtype != DType::kF8E4M3) continue;
    for (int64_t place : {7, 127, 130, 511, 600, 711}) {  // a NaN among the weights of row 1
      E4M3& code = reinterpret_cast<E4M3*>(w.bytes.data())[k + place];
      const E4M3 before = std::exchange(code, E4M3{static_cast<uint8_t>(place % 2 ? 0xff : 0x7f)});
      for (int64_t m : {1, 2, 3, 50}) {
        const auto y =
            gemm(GuardedRows(kernels(), InputRounding::kBf16, dtype, random.normals(m * k), m, k).packed, w.view);
        for (size_t j = 0; j < y.size(); ++j) EXPECT_EQ(std::isnan(y[j]), j % 8 == 1) << j << " of " << m << " rows";
      }
      code = before;
    }
  }
}

// Inputs that are zero but for a one: each output is one weight, exactly. Subnormal codes, and scales at the ends of what is
// promised and beyond where a scale fits into a float32 beside 2^120.
TEST_P(Gemm, EveryCodeWithEveryScale) {
  TestRandom random(11);
  const int64_t n = 131, k = 256;
  for (float scale : {1.0f / 128, 0x1p100f, 0x1p-100f, 0x1p7f, 300.0f, 0.7f}) {
    GuardedMatrix w(random, DType::kF8E4M3, n, k);
    for (int64_t i = 0; i < n * k; ++i) {  // every code at every place of a register
      const uint8_t bits = static_cast<uint8_t>(i + i / k);
      reinterpret_cast<E4M3*>(w.bytes.data())[i] = E4M3{(bits & 0x7f) == 0x7f ? uint8_t{0} : bits};
    }
    std::fill(w.scale.span().begin(), w.scale.span().end(), scale);
    w.view.pow2_scale = all_pow2(w.scale.data(), static_cast<int64_t>(w.scale.size()));
    for (int64_t m : {1, 2, 3, 50}) {
      for (int64_t first = 0; first < k; first += m < 50 ? 29 : 50) {
        std::vector<float> x(static_cast<size_t>(m * k));
        const auto place = [&](int64_t t) { return (first + t) % k; };
        for (int64_t t = 0; t < m; ++t) x[static_cast<size_t>(t * k + place(t))] = 1;
        const auto y = gemm(GuardedRows(kernels(), InputRounding::kBf16, DType::kF8E4M3, x, m, k).packed, w.view);
        for (int64_t t = 0; t < m; ++t)
          for (int64_t j = 0; j < n; ++j)
            ASSERT_EQ(y[static_cast<size_t>(t * n + j)], w.view.at(j, place(t)))
                << "scale " << scale << ", row " << t << " of " << m << ", weight " << j << " " << place(t);
      }
    }
  }
}

// Kernels that sum in units of a block's scale must not care how far the scales of neighbouring blocks are apart, nor how large the
// inputs are.
TEST_P(Gemm, ScalesAndInputsFarApart) {
  TestRandom random(12);
  const int64_t n = 140, k = 1580, m = 14;
  for (int range : {0, 4, 9, 20, 45, 70}) {
    GuardedMatrix w(random, DType::kF8E4M3, n, k, true);
    const int64_t blocks = w.view.scale_cols();
    for (size_t b = 0; b < w.scale.size(); ++b) {
      // 0: every fourth block's scale is far above those before it, and its inputs are zero: what was summed before must not be
      // lost.
      const int far = static_cast<int64_t>(b) % blocks % 4 == 3 ? 5 : -45;
      w.scale[b] = std::ldexp(1.0f, range == 0 ? far : static_cast<int>(random.below(2 * range + 1)) - range);
    }
    w.view.pow2_scale = all_pow2(w.scale.data(), static_cast<int64_t>(w.scale.size()));
    ASSERT_TRUE(w.view.pow2_scale);
    auto x = random.normals(m * k);
    for (int64_t i = 0; i < m * k; ++i) {
      const int exponent = static_cast<int>(i / k * 7 % 41) - (range == 0 ? 40 : 20);
      x[static_cast<size_t>(i)] *= i % k / 128 % 4 == 3 ? 0 : std::ldexp(1.0f, exponent);
    }
    std::vector<float> alone;
    for (int64_t t = 0; t < m; ++t) {
      const GuardedRows row(kernels(), InputRounding::kBf16, DType::kF8E4M3, x, m, k, {static_cast<int32_t>(t)});
      const auto y = gemm(row.packed, w.view);
      alone.insert(alone.end(), y.begin(), y.end());
    }
    for (int64_t batch : {2, 3, 4, 7, 12, 13, 14}) {
      const GuardedRows rows(kernels(), InputRounding::kBf16, DType::kF8E4M3, x, batch, k);
      ASSERT_TRUE(same_bits(gemm(rows.packed, w.view), std::span(alone).first(static_cast<size_t>(batch * n)), n))
          << "exponents up to " << range << ", batch of " << batch;
    }
    const GuardedRows rows(kernels(), InputRounding::kBf16, DType::kF8E4M3, x, m, k);
    const Product expected = product(rows.rounded, m, w.view);
    ASSERT_TRUE(close_rows(alone, expected.y, m, n, {.bound = expected.bound})) << "exponents up to " << range;
  }
}

TEST_P(Gemm, AbsorptionLetsNanThrough) {
  TestRandom random(13);
  const int64_t nope = 32, rank = 64;
  const GuardedMatrix w(random, DType::kF8E4M3, nope, rank, true);
  const auto q = random.normals(7 * nope);
  reinterpret_cast<E4M3*>(w.bytes.data())[5 * rank + 33] = E4M3{0xff};
  for (int64_t m : {1, 2, 3, 7}) {
    std::vector<float> y(static_cast<size_t>(m * rank));
    kernels().absorb({q.data(), nope, m, nope, w.view, 0, y.data(), rank}, scratch_);
    for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i % rank == 33) << i << " of " << m << " rows";
  }
}

TEST_P(Gemm, Absorb) {
  TestRandom random(9);
  for (auto [dtype, pow2] :
       {std::pair{DType::kF8E4M3, false}, {DType::kF8E4M3, true}, {DType::kBF16, false}, {DType::kF32, false}}) {
    for (int64_t rank : {1, 15, 40, 64, 65, 129, 512}) {
      const int64_t heads = 3, nope = 48, value = 20;
      const GuardedMatrix w(random, dtype, heads * (nope + value), rank, pow2);
      for (int64_t m : {1, 2, 7, 19}) {
        auto q = random.normals(m * heads * nope);
        std::vector<float> expected(static_cast<size_t>(m * heads * rank)), bound(expected.size());
        const Tensor qt = Tensor::cube(q.data(), m, heads, nope);
        ref::absorb(qt, w.view, value, Tensor::cube(expected.data(), m, heads, rank));
        for (int64_t t = 0; t < m; ++t)
          for (int64_t h = 0; h < heads; ++h)
            for (int64_t r = 0; r < rank; ++r) {
              double size = 0;
              for (int64_t d = 0; d < nope; ++d)
                size += std::fabs(static_cast<double>(qt.at(t, h)[d]) * w.view.at(h * (nope + value) + d, r));
              // One chain of `nope` additions, and the products' own roundings (or those of the three pieces of q).
              bound[static_cast<size_t>((t * heads + h) * rank + r)] =
                  static_cast<float>(size * static_cast<double>(nope + 8) * 0x1p-24);
            }
        const Guarded<float> in(q), y(expected.size());
        for (int64_t h = 0; h < heads; ++h)
          kernels().absorb({in.data() + h * nope, heads * nope, m, nope, w.view, h * (nope + value),
                            y.data() + h * rank, heads * rank},
                           scratch_);
        ASSERT_TRUE(y.intact());
        ASSERT_TRUE(close_rows(y.span(), expected, m * heads, rank, {.bound = bound}))
            << dtype_name(dtype) << " rank " << rank << " m " << m;
        const Guarded<float> alone(static_cast<size_t>(rank));
        kernels().absorb({in.data() + (m - 1) * heads * nope, heads * nope, 1, nope, w.view, 0, alone.data(), rank},
                         scratch_);
        ASSERT_TRUE(same_bits(alone.span(),
                              y.span().subspan(static_cast<size_t>((m - 1) * heads * rank), static_cast<size_t>(rank))))
            << "a row alone";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, Gemm, kernel_isas(), isa_test_name);

}  // namespace
}  // namespace fathom::cpu
