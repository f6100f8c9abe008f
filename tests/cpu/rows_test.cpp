// Conformance of the operations on single rows, every instruction set against src/ops.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include "cpu/kernels.h"
#include "ops/indexer.h"
#include "ops/moe.h"
#include "ops/norm.h"
#include "ops/quantize.h"
#include "support/compare.h"
#include "support/guarded.h"
#include "support/isa.h"
#include "support/random.h"

namespace fathom::cpu {
namespace {

class Rows : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { FATHOM_SKIP_UNLESS_SUPPORTED(GetParam()); }
  const Kernels& kernels() const { return kernels_for(GetParam()); }
  TestRandom random_{1};
};

constexpr std::array<int64_t, 9> kRowWidths = {1, 5, 15, 16, 17, 64, 100, 128, 1563};

TEST_P(Rows, RmsNorm) {
  for (int64_t d : kRowWidths) {
    const auto x = random_.normals(d, 3), gain = random_.normals(d);
    const Guarded<float> in(x), g(gain), y(x.size());
    kernels().rms_norm(in.data(), g.data(), d, 1e-6f, y.data());
    std::vector<float> expected(x.size());
    std::vector<float> copy = x;
    ref::rms_norm(Tensor::matrix(copy.data(), 1, d), gain, 1e-6f, Tensor::matrix(expected.data(), 1, d));
    EXPECT_TRUE(y.intact());
    EXPECT_TRUE(close_rows(y.span(), expected, 1, d, {.relative = 1e-6})) << d;
  }
}

// The same multiplications and additions as in the reference: the same bits.
TEST_P(Rows, Rope) {
  for (int64_t half : {1, 3, 8, 9, 16, 31, 32}) {
    std::vector<float> inv_freq(static_cast<size_t>(half));
    for (size_t i = 0; i < inv_freq.size(); ++i) inv_freq[i] = 1 / (1 + static_cast<float>(i));
    std::vector<float> cos(inv_freq.size()), sin(inv_freq.size());
    const std::vector<int32_t> position = {77};
    rope_angles(inv_freq, 77, cos.data(), sin.data());
    const Guarded<float> c(cos), s(sin);
    for (RopePairs pairs : {RopePairs::kInterleaved, RopePairs::kHalfSplit}) {
      auto expected = random_.normals(2 * half);
      const Guarded<float> x(expected);
      kernels().rope(pairs, c.data(), s.data(), half, x.data());
      ref::rope(pairs, inv_freq, position, Tensor::cube(expected.data(), 1, 1, 2 * half));
      EXPECT_TRUE(x.intact());
      EXPECT_TRUE(same_bits(x.span(), expected)) << half;
    }
  }
}

// Codes decide which keys are chosen: they must be the reference's, all of them.
TEST_P(Rows, IndexerRowsHaveTheReferencesCodes) {
  for (int64_t dim : {1, 2, 8, 16, 32, 64, 128, 256, 512}) {
    for (float size : {1e-6f, 1.0f, 300.0f}) {
      const int64_t heads = 5;
      const auto q = random_.normals(heads * dim, size), w = random_.normals(heads);
      const Guarded<float> in(q), weights_in(w), weights(w.size());
      const Guarded<E4M3> codes(q.size());
      kernels().index_query(in.data(), weights_in.data(), heads, dim, codes.data(), weights.data());
      std::vector<E4M3> expected(q.size());
      std::vector<float> expected_weights(w.size());
      ref::index_query(q.data(), w.data(), heads, dim, expected.data(), expected_weights.data());
      EXPECT_TRUE(codes.intact() && weights.intact());
      EXPECT_TRUE(same_bits(weights.span(), expected_weights)) << dim;
      for (size_t i = 0; i < q.size(); ++i) ASSERT_EQ(codes[i].bits, expected[i].bits) << i << " of " << dim;

      const float scale = kernels().index_key(in.data(), dim, codes.data());
      EXPECT_EQ(scale, ref::index_key(q.data(), dim, expected.data()));
      for (size_t i = 0; i < static_cast<size_t>(dim); ++i) ASSERT_EQ(codes[i].bits, expected[i].bits) << i;
    }
  }
}

// Rounding to E4M3 at every edge: halfway between codes, subnormals, saturation.
TEST_P(Rows, EveryEdgeOfE4M3) {
  const int64_t dim = 128;
  std::vector<float> values;
  for (int code = 0; code < 0x7e; ++code) {
    const float low = to_float(E4M3{static_cast<uint8_t>(code)}), high = to_float(E4M3{static_cast<uint8_t>(code + 1)});
    for (float x :
         {low, (low + high) / 2, std::nextafter((low + high) / 2, 1e9f), std::nextafter((low + high) / 2, 0.0f)})
      values.insert(values.end(), {x, -x});
  }
  while (values.size() % 127 != 0) values.push_back(0);
  for (size_t i = 0; i < values.size(); i += 127) {
    // The transform of a row is its own inverse: what comes out is `wanted`, whose largest value makes the scale 1.
    std::vector<float> wanted(values.begin() + static_cast<int64_t>(i), values.begin() + static_cast<int64_t>(i) + 127);
    wanted.push_back(448);
    std::vector<float> row = wanted;
    ref::hadamard(row.data(), dim);
    std::vector<E4M3> expected(dim), codes(dim);
    EXPECT_EQ(kernels().index_key(row.data(), dim, codes.data()), ref::index_key(row.data(), dim, expected.data()));
    for (size_t j = 0; j < codes.size(); ++j) ASSERT_EQ(codes[j].bits, expected[j].bits) << wanted[j];
  }
}

TEST_P(Rows, SiluProduct) {
  for (int64_t n : kRowWidths) {
    auto gate = random_.normals(n, 20);
    if (n > 16) gate[3] = -200, gate[4] = 200, gate[5] = 0;
    const auto up = random_.normals(n);
    const Guarded<float> g(gate), u(up), y(gate.size());
    kernels().silu_product(g.data(), u.data(), n, y.data());
    EXPECT_TRUE(y.intact());
    for (size_t i = 0; i < gate.size(); ++i) {
      const double x = gate[i], expected = x / (1 + std::exp(-x)) * up[i];
      // e^x to 2e-7, three more roundings; below −87 everything is as good as 0.
      EXPECT_NEAR(y[i], expected, 6e-7 * std::fabs(expected) + 1e-30) << x;
    }
    g.data()[0] = std::nanf("");
    kernels().silu_product(g.data(), u.data(), n, y.data());
    EXPECT_TRUE(std::isnan(y[0]));
  }
}

TEST_P(Rows, AddWeighted) {
  for (int64_t n : kRowWidths) {
    const auto x = random_.normals(n);
    auto expected = random_.normals(n);
    const Guarded<float> in(x), y(expected);
    kernels().add_weighted(0.7f, in.data(), n, y.data());
    for (size_t i = 0; i < x.size(); ++i) expected[i] += 0.7f * x[i];
    EXPECT_TRUE(y.intact());
    EXPECT_TRUE(same_bits(y.span(), expected));
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, Rows, kernel_isas(), isa_test_name);

}  // namespace
}  // namespace fathom::cpu
