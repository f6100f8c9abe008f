// The CPU backend against the reference backend, operation by operation, and each against itself on 1, 2 and 3 threads.
#include "cpu/backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "cpu/reference_backend.h"
#include "ops/norm.h"
#include "support/compare.h"
#include "support/isa.h"
#include "support/kv_memory.h"
#include "support/random.h"

namespace fathom::cpu {
namespace {

constexpr int64_t kTokens = 150, kRank = 72, kRope = 16, kIndexDim = 64, kTopK = 24;

// A weight of one of the three formats.
struct Weight {
  Weight(TestRandom& random, DType dtype, int64_t rows, int64_t cols) {
    const float size = 1 / std::sqrt(static_cast<float>(cols));
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float x = size * random.normal();
      if (dtype == DType::kF8E4M3) f8.push_back(to_e4m3(x * 128));
      if (dtype == DType::kBF16) bf16.push_back(to_bf16(x));
      if (dtype == DType::kF32) f32.push_back(x);
    }
    // Every other FP8 weight has powers of two for scales.
    const bool pow2 = random.below(2) == 0;
    for (int64_t i = 0; i < (rows + 127) / 128 * ((cols + 127) / 128); ++i)
      scale.push_back(pow2 ? std::ldexp(1.0f, static_cast<int>(random.below(2)) - 7)
                           : static_cast<float>(random.uniform(0.5, 2) / 128));
    const void* data = dtype == DType::kF8E4M3 ? static_cast<const void*>(f8.data())
                       : dtype == DType::kBF16 ? static_cast<const void*>(bf16.data())
                                               : f32.data();
    view = {dtype, rows, cols, data, dtype == DType::kF8E4M3 ? scale.data() : nullptr, dtype == DType::kF8E4M3 && pow2};
  }
  Weight(Weight&&) = default;
  std::vector<E4M3> f8;
  std::vector<BF16> bf16;
  std::vector<float> f32, scale;
  MatrixView view;
};

BackendSettings settings(Isa isa, InputRounding fp8_input = InputRounding::kBf16) {
  BackendSettings s;
  s.isa = isa;
  s.fp8_input = fp8_input;
  s.rms_norm_eps = 1e-5f;
  s.rope_inv_freq = yarn_inv_freq({.dim = kRope, .theta = 10000, .factor = 4, .original_max_position = 64});
  s.index_topk = kTopK;
  return s;
}

// A step of three slices of two sequences: a prompt, a single token far on, and a stretch in the middle.
struct TestStep {
  TestStep()
      : kv({.rank = kRank, .rope_dim = kRope, .index_dim = kIndexDim, .format = LatentFormat::kBf16}, 2, 3 * 192) {
    slices = {{0, 11, kv.blocks()}, {149, 1, kv.blocks() + 3}, {30, 20, kv.blocks() + 6}};
    tokens.assign(32, 0);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 19);
    step.tokens = tokens;
    step.slices = slices;
    step.kv = &kv.cache;
  }
  // What earlier steps would have written: the same in every cache.
  void fill(uint64_t seed) {
    TestRandom random(seed);
    for (int64_t sequence = 0; sequence < 3; ++sequence)
      for (int64_t layer = 0; layer < 2; ++layer)
        for (int64_t s = 0; s < kTokens; ++s) {
          const KvRows rows{&kv.cache, layer, kv.blocks() + 3 * sequence};
          const auto latent = random.normals(kRank), key = random.normals(kRope), index = random.normals(kIndexDim);
          ref::write_latent_row(rows, s, latent.data(), key.data());
          ref::write_index_key(rows, s, index.data());
        }
  }
  KvMemory kv;
  std::vector<Slice> slices;
  std::vector<int32_t> tokens;
  Step step;
};

class BackendTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { FATHOM_SKIP_UNLESS_SUPPORTED(GetParam()); }

  // Runs `body(backend)` on the reference and on 1, 2 and 3 threads. The result must be within `tolerance` of the
  // reference's, and the same bits on any number of threads.
  template <typename Body>
  void check(const Tolerance& tolerance, Body body, InputRounding fp8_input = InputRounding::kBf16) {
    TestStep expected_step;
    expected_step.fill(9);
    ReferenceBackend reference(settings(Isa::kReference, fp8_input));
    reference.begin_step(expected_step.step);
    const Tensor expected = body(reference);
    const std::vector<float> expected_values = contents(expected);
    std::vector<float> first;
    for (int threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      TestStep step;
      step.fill(9);
      Backend backend(settings(GetParam(), fp8_input), pool);
      backend.begin_step(step.step);
      const Tensor actual = body(backend);
      ASSERT_EQ(actual.dim, expected.dim);
      ASSERT_TRUE(close_rows(contents(actual), expected_values, expected.rows(), expected.cols(), tolerance))
          << threads << " threads";
      if (threads == 1) first = contents(actual);
      ASSERT_TRUE(same_bits(contents(actual), first, expected.cols())) << threads << " threads";
    }
  }

  // Inputs are copied, for operations that work in place.
  template <typename B>
  static Tensor copy(B&, std::vector<float>& memory, const std::vector<float>& x, int64_t rows, int64_t cols) {
    memory = x;
    return Tensor::matrix(memory.data(), rows, cols);
  }
  TestRandom random{1};
};

// Row-wise float32 operations share their code or differ by the order of a few additions.
constexpr Tolerance kExact{.relative = 1e-6};
// Inputs rounded to BF16 (2^-8 each at worst) where the reference rounds nothing. Random signs average the error out:
// over 100 and more products the sum is off by about 2^-9 of its size, the worst element of a row by a few times that.
constexpr Tolerance kBf16Inputs{.relative = 0.012};

TEST_P(BackendTest, EmbedNormsConcatGatherAdd) {
  const Weight table(random, DType::kBF16, 19, 100);
  auto x = random.normals(32 * 100), delta = random.normals(32 * 100);
  const auto gain = random.normals(100), bias = random.normals(100);
  std::vector<float> memory;
  check(kExact, [&](auto& b) { return b.embed(table.view, b.step().tokens); });
  check(kExact, [&](auto& b) { return b.rms_norm(Tensor::matrix(x.data(), 32, 100), gain); });
  check(kExact, [&](auto& b) {  // columns of a wider matrix
    return b.rms_norm(Tensor::matrix(x.data(), 32, 100).slice(20, 60), std::span(gain).first(60));
  });
  check(kExact, [&](auto& b) { return b.layer_norm(Tensor::matrix(x.data(), 32, 100), gain, bias); });
  check({}, [&](auto& b) {
    return b.concat(Tensor::matrix(x.data(), 32, 100), Tensor::matrix(delta.data(), 32, 100).slice(3, 17));
  });
  const std::vector<int32_t> rows = {31, 0, 0, 7};
  check({}, [&](auto& b) { return b.gather(Tensor::matrix(x.data(), 32, 100), rows); });
  check({}, [&](auto& b) {
    const Tensor y = copy(b, memory, x, 32, 100);
    b.add(y, Tensor::matrix(delta.data(), 32, 100));
    return y;
  });
}

TEST_P(BackendTest, Rope) {
  auto x = random.normals(32 * 3 * (kRope + 5));
  std::vector<float> memory;
  for (RopePairs pairs : {RopePairs::kInterleaved, RopePairs::kHalfSplit})
    check(kExact, [&](auto& b) {
      const Tensor y = copy(b, memory, x, 32, 3 * (kRope + 5));
      b.rope(y.split_heads(3).slice(2, kRope), pairs);
      return y;
    });
}

TEST_P(BackendTest, Linear) {
  for (int64_t k : {72, 129, 300}) {
    auto x = random.normals(32 * k);
    for (DType dtype : {DType::kF8E4M3, DType::kBF16, DType::kF32}) {
      const Weight w(random, dtype, 131, k);
      const Tensor in = Tensor::matrix(x.data(), 32, k);
      check(dtype == DType::kF32 ? kExact : kBf16Inputs, [&](auto& b) { return b.linear(in, w.view); });
      check(dtype == DType::kF8E4M3 ? kBf16Inputs : kExact, [&](auto& b) { return b.linear_exact(in, w.view); });
      if (dtype != DType::kF8E4M3) continue;
      // Both round the same inputs to the same FP8 codes.
      for (auto rounding : {InputRounding::kFp8, InputRounding::kFp8Pow2})
        check(
            kExact, [&](auto& b) { return b.linear(in, w.view); }, rounding);
    }
  }
}

TEST_P(BackendTest, AppendedRowsAreTheSame) {
  auto latent = random.normals(32 * (kRank + kRope)), key = random.normals(32 * kIndexDim);
  const Tensor kv = Tensor::matrix(latent.data(), 32, kRank + kRope);
  const auto append = [&](auto&& backend, TestStep& step) {
    step.fill(3);
    backend.begin_step(step.step);
    backend.append_latent(1, kv.slice(0, kRank), kv.slice(kRank, kRope));
    backend.append_index_key(1, Tensor::matrix(key.data(), 32, kIndexDim));
  };
  const auto bytes_of = [](const TestStep& step) {
    const KvCache& c = step.kv.cache;
    std::vector<std::byte> all(c.latent, c.latent + 2 * c.block_count * c.latent_block_bytes());
    all.insert(all.end(), c.index, c.index + 2 * c.block_count * c.index_block_bytes());
    return all;
  };
  TestStep expected;
  append(ReferenceBackend(settings(Isa::kReference)), expected);
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    TestStep actual;
    append(Backend(settings(GetParam()), pool), actual);
    EXPECT_TRUE(same_bits(bytes_of(actual), bytes_of(expected)));
  }
}

TEST_P(BackendTest, IndexSelect) {
  constexpr int64_t kHeads = 6;
  auto q = random.normals(32 * kHeads * kIndexDim), w = random.normals(32 * kHeads);
  // As a tensor: a row's chosen keys, −1 where there are fewer.
  std::vector<float> memory;
  const auto select = [&](auto& b) {
    const IndexQuery query =
        b.index_query(Tensor::cube(q.data(), 32, kHeads, kIndexDim), Tensor::matrix(w.data(), 32, kHeads));
    const Selection s = b.index_select(1, query);
    memory.assign(32 * (kTopK + 1), -1.0f);
    int64_t row = 0;
    for (const Slice& slice : b.step().slices) {
      for (int64_t i = 0; i < slice.count; ++i, ++row) {
        const size_t begin = static_cast<size_t>(row * (kTopK + 1));
        memory[begin] = static_cast<float>(s.count[row]);
        const bool all = s.count[row] == slice.start + i + 1;
        for (int32_t j = 0; j < s.count[row]; ++j)
          memory[begin + 1 + static_cast<size_t>(j)] = static_cast<float>(all ? j : s.index[row * s.stride + j]);
      }
    }
    return Tensor::matrix(memory.data(), 32, kTopK + 1);
  };
  check({}, select);
  // Plateaus: no query likes any key, every score is 0, and the lowest indices win.
  std::fill(w.begin(), w.end(), 0.0f);
  check({}, select);
  for (int64_t j = 0; j < kTopK; ++j)
    EXPECT_EQ(memory[static_cast<size_t>(11 * (kTopK + 1) + 1 + j)], static_cast<float>(j));
}

TEST_P(BackendTest, AttentionOverSelectedAndOverAll) {
  constexpr int64_t kHeads = 21, kNope = 40, kValue = 36;
  auto q_nope = random.normals(32 * kHeads * kNope), q_rope = random.normals(32 * kHeads * kRope);
  for (DType dtype : {DType::kF8E4M3, DType::kBF16, DType::kF32}) {
    const Weight kv_b(random, dtype, kHeads * (kNope + kValue), kRank);
    for (bool all : {false, true}) {
      std::vector<int32_t> index(32 * kTopK), count(32);
      TestRandom choice(4);
      const TestStep layout;
      size_t row = 0;
      for (const Slice& slice : layout.slices)
        for (int64_t i = 0; i < slice.count; ++i, ++row) {
          const int64_t visible = slice.start + i + 1;
          count[row] = static_cast<int32_t>(all ? visible : std::min<int64_t>(visible, kTopK));
          for (int32_t j = 0; j < std::min<int32_t>(count[row], kTopK); ++j)  // every other key, from the newest back
            index[row * kTopK + static_cast<size_t>(j)] = static_cast<int32_t>(
                visible <= kTopK ? j : std::max<int64_t>(j, visible - 1 - 2 * (count[row] - 1 - j)));
        }
      std::vector<float> rope_memory;
      check(kBf16Inputs, [&](auto& b) {
        const Tensor q_r = copy(b, rope_memory, q_rope, 32, kHeads * kRope).split_heads(kHeads);
        const Tensor q_l = b.absorb(Tensor::cube(q_nope.data(), 32, kHeads, kNope), kv_b.view, kValue);
        const Selection chosen{index.data(), count.data(), kTopK};
        const Tensor o_l = b.attend(0, q_l, q_r, all ? b.all_visible() : chosen, 0.13f);
        return b.project_values(o_l, kv_b.view, kNope, kValue);
      });
    }
  }
}

struct Mlp {
  Mlp(TestRandom& random, DType dtype, int64_t width, int64_t inner)
      : gate(random, dtype, inner, width), up(random, dtype, inner, width), down(random, dtype, width, inner) {}
  Weight gate, up, down;
  MlpWeights weights() const { return {gate.view, up.view, down.view}; }
};

TEST_P(BackendTest, MlpAndExperts) {
  constexpr int64_t kWidth = 150, kInner = 70, kExperts = 9, kChosen = 3;
  auto x = random.normals(32 * kWidth);
  const Tensor in = Tensor::matrix(x.data(), 32, kWidth);
  auto logits = random.normals(32 * kExperts);
  const auto bias = random.normals(kExperts, 0.1f);
  const RouterSettings router{.experts = kExperts, .groups = 3, .kept_groups = 2, .top_k = kChosen, .scale = 2.5f};
  for (DType dtype : {DType::kF8E4M3, DType::kBF16, DType::kF32}) {
    std::vector<Mlp> memory;
    std::vector<MlpWeights> experts;
    for (int e = 0; e < kExperts; ++e) memory.emplace_back(random, dtype, kWidth, kInner);
    for (const Mlp& m : memory) experts.push_back(m.weights());
    const Mlp shared(random, dtype, kWidth, 2 * kInner);
    const MlpWeights shared_weights = shared.weights();
    // Two products one after the other.
    const Tolerance tolerance = dtype == DType::kF32 ? Tolerance{.relative = 5e-6} : Tolerance{.relative = 0.02};
    check(tolerance, [&](auto& b) { return b.mlp(in, shared_weights); });
    for (const MlpWeights* s : {&shared_weights, static_cast<const MlpWeights*>(nullptr)})
      check(tolerance, [&](auto& b) {
        const Routing routing = b.route(router, 0, Tensor::matrix(logits.data(), 32, kExperts), bias);
        return b.experts(in, s, experts, routing);
      });
    if (dtype == DType::kF8E4M3)
      // An intermediate value on the edge between two FP8 codes may fall to either side: 6 % of one of 70 products.
      check(
          {.relative = 0.03},
          [&](auto& b) {
            const Routing routing = b.route(router, 0, Tensor::matrix(logits.data(), 32, kExperts), bias);
            return b.experts(in, &shared_weights, experts, routing);
          },
          InputRounding::kFp8Pow2);
  }
}

// A row of a step has the bits that it has in a step of its own.
TEST_P(BackendTest, RowsDoNotDependOnTheStep) {
  const Mlp mlp(random, DType::kF8E4M3, 140, 60);
  const MlpWeights weights = mlp.weights();
  auto x = random.normals(32 * 140);
  ThreadPool pool(2);
  Backend backend(settings(GetParam()), pool);
  TestStep whole;
  backend.begin_step(whole.step);
  const auto expected = contents(backend.mlp(Tensor::matrix(x.data(), 32, 140), weights));
  for (int64_t t : {0, 1, 13, 31}) {
    const Slice slice{5, 1, whole.kv.blocks()};
    Step one;
    one.tokens = std::span(whole.tokens).first(1);
    one.slices = {&slice, 1};
    one.kv = &whole.kv.cache;
    backend.begin_step(one);
    EXPECT_TRUE(same_bits(contents(backend.mlp(Tensor::matrix(x.data() + t * 140, 1, 140), weights)),
                          std::span(expected).subspan(static_cast<size_t>(t * 140), 140)));
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, BackendTest, kernel_isas(), isa_test_name);

}  // namespace
}  // namespace fathom::cpu
