// Attention of a prompt's rows in whatever form the backend takes, against the reference in doubles, and against itself
// however the prompt is cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/backend.h"
#include "cpu/reference_backend.h"
#include "support/compare.h"
#include "support/isa.h"
#include "support/kv_memory.h"
#include "support/random.h"

namespace fathom::cpu {
namespace {

struct PromptCase {
  int64_t rank, rope, nope, value, heads, tokens, top_k, unabsorbed_until;
  DType dtype;
  bool pow2;
  LatentFormat format;
};

class PromptProblem {
 public:
  explicit PromptProblem(const PromptCase& c)
      : c_(c), kv_({.rank = c.rank, .rope_dim = c.rope, .index_dim = 32, .format = c.format}, 1, c.tokens) {
    TestRandom random(3);
    const int64_t rows = c.heads * (c.nope + c.value), blocks = (rows + 127) / 128 * ((c.rank + 127) / 128);
    for (int64_t i = 0; i < rows * c.rank; ++i) {
      const float x = random.normal() / std::sqrt(static_cast<float>(c.rank));
      f8_.push_back(to_e4m3(x * 128));
      bf16_.push_back(to_bf16(x));
      f32_.push_back(x);
    }
    for (int64_t i = 0; i < blocks; ++i)
      scale_.push_back(c.pow2 ? std::ldexp(1.0f, -7 - static_cast<int>(random.below(2)))
                              : static_cast<float>(random.uniform(0.5, 1) / 128));
    weight_ = {c.dtype, rows, c.rank, f8_.data(), scale_.data(), c.pow2};
    if (c.dtype == DType::kBF16) weight_ = {c.dtype, rows, c.rank, bf16_.data(), nullptr, false};
    if (c.dtype == DType::kF32) weight_ = {c.dtype, rows, c.rank, f32_.data(), nullptr, false};
    for (int64_t s = 0; s < c.tokens; ++s) {
      const auto latent = random.normals(c.rank), key = random.normals(c.rope);
      ref::write_latent_row(kv_.rows(), s, latent.data(), key.data());
    }
    q_nope_ = random.normals(c.tokens * c.heads * c.nope);
    q_rope_ = random.normals(c.tokens * c.heads * c.rope);
  }

  // Rows [start, start + count), all that they see.
  template <typename B>
  std::vector<float> run(B& backend, int64_t start, int64_t count, bool prompt) {
    const Slice slice{start, count, kv_.blocks(), prompt};
    const std::vector<int32_t> tokens(static_cast<size_t>(count));
    Step step;
    step.tokens = tokens;
    step.slices = {&slice, 1};
    step.kv = &kv_.cache;
    backend.begin_step(step);
    const Tensor q_n = Tensor::cube(q_nope_.data() + start * c_.heads * c_.nope, count, c_.heads, c_.nope);
    const Tensor q_r = Tensor::cube(q_rope_.data() + start * c_.heads * c_.rope, count, c_.heads, c_.rope);
    const float scale = 1 / std::sqrt(static_cast<float>(c_.nope + c_.rope));
    if (c_.top_k == 0) return contents(backend.attention(0, q_n, q_r, weight_, c_.value, backend.all_visible(), scale));
    // From top_k keys on, some are left out: any, but none of the first 70, so that whole spans of bits are empty.
    std::vector<int32_t> index(static_cast<size_t>(count * c_.top_k)), kept(static_cast<size_t>(count));
    for (int64_t t = 0; t < count; ++t) {
      const int64_t visible = start + t + 1, n = std::min(visible, c_.top_k);
      kept[static_cast<size_t>(t)] = static_cast<int32_t>(n);
      int32_t* chosen = &index[static_cast<size_t>(t * c_.top_k)];
      std::iota(chosen, chosen + n, static_cast<int32_t>(std::min<int64_t>(visible - n, 70)));
      TestRandom random(static_cast<uint64_t>(start + t));
      for (int64_t s = chosen[n - 1] + 1; s < visible; ++s)
        if (random.below(3) == 0) chosen[random.below(n)] = static_cast<int32_t>(s);
      std::sort(chosen, chosen + n);
    }
    return contents(backend.attention(0, q_n, q_r, weight_, c_.value, {index.data(), kept.data(), c_.top_k}, scale));
  }
  BackendSettings settings(Isa isa) const {
    BackendSettings s;
    s.isa = isa;
    s.index_topk = c_.top_k;
    s.unabsorbed_until = c_.unabsorbed_until;
    return s;
  }

 private:
  PromptCase c_;
  KvMemory kv_;
  std::vector<E4M3> f8_;
  std::vector<BF16> bf16_;
  std::vector<float> f32_, scale_, q_nope_, q_rope_;
  MatrixView weight_;
};

class PromptAttention : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { FATHOM_SKIP_UNLESS_SUPPORTED(GetParam()); }
};

TEST_P(PromptAttention, AgainstTheReferenceAndHoweverItIsCut) {
  const PromptCase cases[] = {
      {64, 32, 32, 32, 3, 620, 0, 0, DType::kF8E4M3, true, LatentFormat::kBf16},    // over a block of keys
      {64, 32, 32, 32, 17, 1100, 0, 0, DType::kF8E4M3, true, LatentFormat::kBf16},  // parts of keys, groups of heads
      {130, 64, 64, 32, 2, 150, 0, 0, DType::kF8E4M3, false, LatentFormat::kBf16},  // scales of any value, odd rank
      {96, 32, 64, 96, 2, 300, 0, 0, DType::kBF16, false, LatentFormat::kFp8},
      {96, 32, 40, 24, 2, 170, 0, 0, DType::kF32, false, LatentFormat::kBf16},         // panels that are not full
      {64, 32, 32, 32, 2, 200, 90, 0, DType::kF8E4M3, true, LatentFormat::kBf16},      // the form changes at top_k
      {64, 32, 32, 32, 2, 700, 90, 560, DType::kF8E4M3, true, LatentFormat::kBf16},    // un-absorbed until 560
      {96, 64, 128, 128, 2, 640, 100, 620, DType::kF8E4M3, true, LatentFormat::kFp8},  // heads of the real model
      {40, 16, 24, 20, 2, 70, 0, 0, DType::kF8E4M3, true, LatentFormat::kBf16},  // shapes without an un-absorbed form
  };
  for (const PromptCase& c : cases) {
    PromptProblem problem(c);
    ReferenceBackend reference(problem.settings(Isa::kReference));
    const auto expected = problem.run(reference, 0, c.tokens, true);
    const int64_t width = c.heads * c.value;
    std::vector<float> whole;
    for (int threads : {1, 3}) {
      ThreadPool pool(threads);
      Backend backend(problem.settings(GetParam()), pool);
      const auto actual = problem.run(backend, 0, c.tokens, true);
      // q, k, v and p in BF16: 2^-9 each at random, and an output is a mean of values, smaller than they are.
      ASSERT_TRUE(close_rows(actual, expected, c.tokens, width, {.relative = 0.025})) << c.rank << " " << c.tokens;
      if (threads == 1) whole = actual;
      ASSERT_TRUE(same_bits(actual, whole, width)) << threads << " threads";
      for (int64_t chunk : {1, 7, 64, 256}) {
        if (chunk < 64 && c.tokens > 200 * chunk) continue;
        std::vector<float> pieces;
        for (int64_t start = 0; start < c.tokens; start += chunk) {
          const auto piece = problem.run(backend, start, std::min(chunk, c.tokens - start), true);
          pieces.insert(pieces.end(), piece.begin(), piece.end());
        }
        ASSERT_TRUE(same_bits(pieces, whole, width)) << "chunks of " << chunk << " rank " << c.rank;
      }
    }
    // Reproducible: the bits of a row that is decoded, alone and shared out by keys and heads among many threads.
    BackendSettings settings = problem.settings(GetParam());
    settings.absorbed_only = true;
    ThreadPool pool(2), wide(9);
    Backend backend(settings, pool), wide_backend(settings, wide);
    const auto absorbed = problem.run(backend, 0, c.tokens, true);
    ASSERT_TRUE(same_bits(absorbed, problem.run(backend, 0, c.tokens, false), width));
    for (int64_t t : {c.tokens / 2, c.tokens - 1})
      ASSERT_TRUE(same_bits(problem.run(wide_backend, t, 1, false),
                            std::span(absorbed).subspan(static_cast<size_t>(t * width), static_cast<size_t>(width)),
                            width));
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, PromptAttention, kernel_isas(), isa_test_name);

}  // namespace
}  // namespace fathom::cpu
