// Conformance of the attention kernel: every instruction set against ref::attend, with odd shapes and guard pages.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "cpu/kernels.h"
#include "ops/attention.h"
#include "support/compare.h"
#include "support/guarded.h"
#include "support/isa.h"
#include "support/kv_memory.h"
#include "support/random.h"

namespace fathom::cpu {
namespace {

struct Shape {
  int64_t heads, rank, rope;
};

struct Problem {
  Problem(TestRandom& random, Shape s, LatentFormat format, int64_t tokens)
      : shape(s),
        memory({.rank = s.rank, .rope_dim = s.rope, .index_dim = 0, .format = format}, 1, tokens),
        q_latent(random.normals(s.heads * s.rank, 1.5f / std::sqrt(static_cast<float>(s.rank)))),
        q_rope(random.normals(s.heads * s.rope, 1.5f / std::sqrt(static_cast<float>(s.rope)))) {
    for (int64_t t = 0; t < tokens; ++t) {
      const auto latent = random.normals(s.rank), key = random.normals(s.rope);
      ref::write_latent_row(memory.rows(), t, latent.data(), key.data());
    }
  }

  // Heads [first, first + count).
  std::vector<float> run(const Kernels& kernels, const std::vector<int32_t>* listed, int64_t keys, int64_t first,
                         int64_t count) {
    Arena scratch;
    const Guarded<float> ql(part(q_latent, first, count, shape.rank)), qr(part(q_rope, first, count, shape.rope));
    const Guarded<float> out(static_cast<size_t>(count * shape.rank));
    std::optional<Guarded<int32_t>> rows;
    if (listed) rows.emplace(*listed);
    const Guarded<float> sums(static_cast<size_t>(count));
    AttendArgs args;
    args.q_latent = ql.data();
    args.q_latent_stride = shape.rank;
    args.q_rope = qr.data();
    args.q_rope_stride = shape.rope;
    args.heads = count;
    args.kv = memory.rows();
    args.rows = rows ? rows->data() : nullptr;
    args.count = keys;
    args.scale = kScale;
    args.out = out.data();
    args.out_stride = shape.rank;
    args.log_sum = sums.data();
    kernels.attend(args, scratch);
    EXPECT_TRUE(out.intact() && sums.intact());
    log_sum.assign(sums.data(), sums.data() + sums.size());
    return {out.data(), out.data() + out.size()};
  }

  std::vector<float> log_sum;  // of the last run

  // The reference, and Σ p |c| of every output: what a relative error of the probabilities moves it by.
  struct Expected {
    std::vector<float> out, size;
  };
  Expected reference(const std::vector<int32_t>& rows) {
    Expected e{std::vector<float>(q_latent.size()), std::vector<float>(q_latent.size())};
    ref::attend(InputRounding::kBf16, Tensor::cube(q_latent.data(), 1, shape.heads, shape.rank),
                Tensor::cube(q_rope.data(), 1, shape.heads, shape.rope), 0, memory.rows(), rows, kScale,
                Tensor::cube(e.out.data(), 1, shape.heads, shape.rank));
    std::vector<float> latent(static_cast<size_t>(shape.rank)), key(static_cast<size_t>(shape.rope));
    for (int64_t h = 0; h < shape.heads; ++h) {
      std::vector<double> p;
      for (int pass = 0; pass < 2; ++pass) {
        const double total = std::accumulate(p.begin(), p.end(), 0.0);
        for (size_t i = 0; i < rows.size(); ++i) {
          ref::read_latent_row(memory.rows(), rows[i], latent.data(), key.data());
          double dot = 0;
          for (size_t r = 0; r < latent.size(); ++r) {
            const size_t at = static_cast<size_t>(h) * latent.size() + r;
            dot += static_cast<double>(bf16_round(q_latent[at])) * latent[r];
            if (pass == 1) e.size[at] += static_cast<float>(p[i] / total * std::fabs(latent[r]));
          }
          for (size_t r = 0; r < key.size(); ++r)
            dot += static_cast<double>(bf16_round(q_rope[static_cast<size_t>(h) * key.size() + r])) * key[r];
          if (pass == 0) p.push_back(std::exp(dot * kScale));
        }
      }
    }
    return e;
  }

  static constexpr float kScale = 0.73f;
  Shape shape;
  KvMemory memory;
  std::vector<float> q_latent, q_rope;

 private:
  static std::vector<float> part(const std::vector<float>& x, int64_t first, int64_t count, int64_t width) {
    return {x.begin() + first * width, x.begin() + (first + count) * width};
  }
};

std::vector<int32_t> identity(int64_t count) {
  std::vector<int32_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// `count` rising rows out of `tokens`, the last one always among them.
std::vector<int32_t> choose_rows(TestRandom& random, int64_t count, int64_t tokens) {
  auto rows = identity(tokens);
  for (size_t i = 0; i + 1 < rows.size(); ++i)
    std::swap(rows[i], rows[i + static_cast<size_t>(random.below(static_cast<int64_t>(rows.size() - 1 - i)))]);
  std::reverse(rows.begin(), rows.end());
  rows.resize(static_cast<size_t>(count));
  std::sort(rows.begin(), rows.end());
  return rows;
}

class Attend : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { FATHOM_SKIP_UNLESS_SUPPORTED(GetParam()); }
  const Kernels& kernels() const { return kernels_for(GetParam()); }

  // Scores are float32 sums of at most 1,000 products, off by some 1e-5, and so are their exponentials. AVX-512 and AMX round
  // the probabilities to BF16: half a step of 7 mantissa bits, 2^-8. A key that is left out, counted twice or taken from the
  // wrong row moves an output by about 1/keys of Σ p|c|, which for the 200 keys here is 5e-3, and for 65 is 1.5e-2;
  // the mean over rows is held to less.
  double probability_error() const { return in_float32() ? 2e-5 : 0x1p-8 + 2e-5; }
  bool in_float32() const { return GetParam() == Isa::kPortable || GetParam() == Isa::kAvx2; }

  void expect_close(Problem& problem, const std::vector<int32_t>& rows, bool listed, const std::string& what) {
    const auto expected = problem.reference(rows);
    auto bound = expected.size;
    for (float& b : bound) b = static_cast<float>(b * probability_error());
    const Shape& s = problem.shape;
    const auto out = problem.run(kernels(), listed ? &rows : nullptr, static_cast<int64_t>(rows.size()), 0, s.heads);
    ASSERT_TRUE(close_rows(out, expected.out, s.heads, s.rank, {.bound = bound}))
        << what << ": heads " << s.heads << " rank " << s.rank << " rope " << s.rope << " keys " << rows.size();
    // Errors of roundings average out over keys; an error of every probability would not.
    EXPECT_LT(row_errors(out, expected.out, s.heads, s.rank).mean, in_float32() ? 1e-5 : 2e-3) << what;
  }
};

TEST_P(Attend, ShapesFormatsAndCounts) {
  TestRandom random(1);
  for (LatentFormat format : {LatentFormat::kBf16, LatentFormat::kFp8}) {
    for (Shape shape : {Shape{1, 40, 16}, Shape{3, 64, 16}, Shape{8, 72, 8}, Shape{17, 64, 64}, Shape{5, 200, 16},
                        Shape{6, 512, 64}, Shape{33, 32, 2}, Shape{130, 64, 16}}) {
      const int64_t tokens = 200;
      Problem problem(random, shape, format, tokens);
      const std::string name = format == LatentFormat::kBf16 ? "bf16" : "fp8";
      for (int64_t count : {1, 2, 63, 64, 65, 200}) {
        if (shape.heads == 130 && count != 65) continue;
        ASSERT_NO_FATAL_FAILURE(expect_close(problem, identity(count), false, name + " the first rows"));
        if (count == tokens) continue;
        ASSERT_NO_FATAL_FAILURE(expect_close(problem, choose_rows(random, count, tokens), true, name + " listed rows"));
      }
    }
  }
}

// More keys than any kernel takes at a time: what came earlier is scaled down when a later block has the largest score.
TEST_P(Attend, ManyBlocks) {
  TestRandom random(8);
  for (LatentFormat format : {LatentFormat::kBf16, LatentFormat::kFp8}) {
    for (Shape shape : {Shape{7, 64, 32}, Shape{40, 64, 64}}) {
      Problem problem(random, shape, format, 800);
      ASSERT_NO_FATAL_FAILURE(expect_close(problem, identity(800), false, "all"));
      ASSERT_NO_FATAL_FAILURE(expect_close(problem, choose_rows(random, 590, 800), true, "listed"));
    }
  }
}

TEST_P(Attend, ListingAllRowsIsNotListingThem) {
  TestRandom random(2);
  for (LatentFormat format : {LatentFormat::kBf16, LatentFormat::kFp8}) {
    Problem problem(random, {9, 64, 16}, format, 130);
    const auto rows = identity(130);
    EXPECT_TRUE(same_bits(problem.run(kernels(), &rows, 130, 0, 9), problem.run(kernels(), nullptr, 130, 0, 9)));
  }
}

// Which heads are computed together never changes one of them.
TEST_P(Attend, HeadsDoNotDependOnTheirNeighbours) {
  TestRandom random(3);
  for (LatentFormat format : {LatentFormat::kBf16, LatentFormat::kFp8}) {
    Problem problem(random, {130, 96, 16}, format, 70);
    const auto rows = choose_rows(random, 41, 70);
    const auto whole = problem.run(kernels(), &rows, 41, 0, 130);
    const auto expect_part = [&](int64_t first, int64_t count) {
      const auto part = std::span(whole).subspan(static_cast<size_t>(first * 96), static_cast<size_t>(count * 96));
      EXPECT_TRUE(same_bits(problem.run(kernels(), &rows, 41, first, count), part, 96)) << first << " +" << count;
    };
    for (int64_t h = 0; h < 130; h += 3) expect_part(h, 1);
    for (int64_t count : {2, 5, 6, 7, 16, 17, 31, 32, 33, 48, 64, 65, 96, 129}) {
      expect_part(0, count);
      expect_part(130 - count, count);
    }
  }
}

TEST_P(Attend, OnlyListedRowsAreRead) {
  TestRandom random(4);
  Problem problem(random, {5, 64, 16}, LatentFormat::kBf16, 130);
  const std::vector<int32_t> rows = {0, 5, 64, 65, 128};
  const auto before = problem.run(kernels(), &rows, 5, 0, 5);
  const std::vector<float> poison(64, std::nanf(""));
  for (int32_t s = 0; s < 130; ++s)
    if (std::find(rows.begin(), rows.end(), s) == rows.end())
      ref::write_latent_row(problem.memory.rows(), s, poison.data(), poison.data());
  EXPECT_TRUE(same_bits(problem.run(kernels(), &rows, 5, 0, 5), before));
}

TEST_P(Attend, ExtremeScoresStayFinite) {
  TestRandom random(5);
  for (float size : {1e-20f, 300.0f, 1e6f}) {
    Problem problem(random, {3, 64, 16}, LatentFormat::kBf16, 150);
    for (float& x : problem.q_latent) x *= size;
    for (float& x : problem.q_rope) x *= size;
    const auto out = problem.run(kernels(), nullptr, 150, 0, 3);
    const auto expected = problem.reference(identity(150));
    if (size > 1) {
      // One key takes it all: the output is that key's latent row, as the cache holds it.
      std::vector<float> latent(64), key(16), best(64);
      for (int64_t h = 0; h < 3; ++h) {
        std::copy_n(expected.out.begin() + h * 64, 64, best.begin());
        EXPECT_TRUE(
            close_rows(std::span(out).subspan(static_cast<size_t>(h) * 64, 64), best, 1, 64, {.relative = 5e-3}))
            << "scores of size " << size;
      }
    } else {
      EXPECT_TRUE(close_rows(out, expected.out, 3, 64, {.relative = 1e-2}));  // an even mean of 150 rows
    }
  }
}

TEST_P(Attend, NanInARowReachesTheOutput) {
  TestRandom random(6);
  Problem problem(random, {2, 64, 16}, LatentFormat::kBf16, 70);
  std::vector<float> poison(64, 1.0f);
  poison[10] = std::nanf("");
  ref::write_latent_row(problem.memory.rows(), 66, poison.data(), poison.data());
  for (float x : problem.run(kernels(), nullptr, 70, 0, 2)) EXPECT_TRUE(std::isnan(x));
}

TEST_P(Attend, LogOfTheSumOfThePowers) {
  TestRandom random(7);
  Problem problem(random, {18, 96, 32}, LatentFormat::kBf16, 300);
  problem.run(kernels(), nullptr, 300, 0, 18);
  for (int64_t h = 0; h < 18; ++h) {
    double sum = 0;
    for (int64_t s = 0; s < 300; ++s) {
      std::vector<float> latent(96), key(32);
      ref::read_latent_row(problem.memory.rows(), s, latent.data(), key.data());
      double score = 0;
      for (size_t d = 0; d < 96; ++d)
        score += bf16_round(problem.q_latent[static_cast<size_t>(h) * 96 + d]) * latent[d];
      for (size_t d = 0; d < 32; ++d) score += bf16_round(problem.q_rope[static_cast<size_t>(h) * 32 + d]) * key[d];
      sum += std::exp(score * Problem::kScale);
    }
    EXPECT_NEAR(problem.log_sum[static_cast<size_t>(h)], std::log(sum), 1e-4) << h;
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, Attend, kernel_isas(), isa_test_name);

}  // namespace
}  // namespace fathom::cpu
