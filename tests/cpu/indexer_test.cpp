// Conformance of the indexer's scores for every instruction set, and of the streaming top-k.
#include "ops/indexer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/top_k.h"
#include "support/compare.h"
#include "support/guarded.h"
#include "support/isa.h"
#include "support/kv_memory.h"
#include "support/random.h"

namespace fathom::cpu {
namespace {

class IndexScores : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { FATHOM_SKIP_UNLESS_SUPPORTED(GetParam()); }
  const Kernels& kernels() const { return kernels_for(GetParam()); }
};

// Queries and one block of keys.
struct IndexProblem {
  IndexProblem(const Kernels& k, TestRandom& random, int64_t m, int64_t heads_, int64_t dim_, int64_t keys)
      : kernels(k),
        heads(heads_),
        dim(dim_),
        memory({.rank = 2, .rope_dim = 2, .index_dim = dim_}, 1, 3 * kBlockTokens),
        codes(static_cast<size_t>(m * heads_ * dim_)),
        weights(random.normals(m * heads_)),
        // Exactly the keys that are asked for, ending at a guard page.
        key_codes(static_cast<size_t>(keys * dim_)),
        key_scales(static_cast<size_t>(keys)) {
    for (E4M3& c : codes) c = random.e4m3();
    for (E4M3& c : key_codes.span()) c = random.e4m3();
    for (float& s : key_scales.span()) s = std::ldexp(1.0f, static_cast<int>(random.below(20)) - 14);
    for (int64_t s = 0; s < keys; ++s) {  // the same keys where the reference finds them
      std::copy_n(key_codes.data() + s * dim, dim, memory.rows().index_codes(s));
      *memory.rows().index_scale(s) = key_scales[static_cast<size_t>(s)];
    }
    for (int64_t i = 0; i < m; ++i) {
      packed.push_back(std::make_unique<Guarded<std::byte>>(kernels.index_query_bytes(heads, dim) / 64 * 64 + 64));
      kernels.pack_index_query(codes.data() + i * heads * dim, weights.data() + i * heads, heads, dim,
                               packed.back()->data());
      EXPECT_TRUE(packed.back()->intact());
    }
  }

  // Scores (count) of queries [first, first + m).
  std::vector<float> run(int64_t first, int64_t m, int64_t count) {
    std::vector<const void*> queries;
    for (int64_t i = first; i < first + m; ++i) queries.push_back(packed[static_cast<size_t>(i)]->data());
    const Guarded<float> out(static_cast<size_t>(m * kBlockTokens));
    Arena scratch;
    kernels.index_scores(
        {queries.data(), m, heads, dim, key_codes.data(), key_scales.data(), count, out.data(), key_codes.data()},
        scratch);
    EXPECT_TRUE(out.intact());
    std::vector<float> score;
    for (int64_t i = 0; i < m; ++i)
      score.insert(score.end(), out.data() + i * kBlockTokens, out.data() + i * kBlockTokens + count);
    return score;
  }

  const Kernels& kernels;
  int64_t heads, dim;
  KvMemory memory;
  std::vector<E4M3> codes;
  std::vector<float> weights;
  Guarded<E4M3> key_codes;
  Guarded<float> key_scales;
  std::vector<std::unique_ptr<Guarded<std::byte>>> packed;
};

TEST_P(IndexScores, ShapesAgainstTheReference) {
  TestRandom random(1);
  for (auto [heads, dim] : {std::pair<int64_t, int64_t>{1, 32},
                            {3, 64},
                            {4, 128},
                            {8, 64},
                            {16, 32},
                            {17, 128},
                            {33, 64},
                            {64, 128},
                            {80, 16},
                            {100, 64}}) {
    for (int64_t m : {1, 2, 7, 8}) {
      for (int64_t keys : {1, 2, 5, 6, 7, 33, 63, 64}) {
        if (m > 2 && keys != 7 && keys != 64) continue;
        IndexProblem problem(kernels(), random, m, heads, dim, keys);
        std::vector<float> expected(static_cast<size_t>(m * keys)), bound(expected.size());
        for (int64_t i = 0; i < m; ++i) {
          const E4M3* query = problem.codes.data() + i * heads * dim;
          const float* weight = problem.weights.data() + i * heads;
          ref::index_scores(query, weight, heads, problem.memory.rows(), keys, expected.data() + i * keys);
          for (int64_t s = 0; s < keys; ++s) {
            double size = 0;
            for (int64_t h = 0; h < heads; ++h)
              for (int64_t d = 0; d < dim; ++d)
                size += std::fabs(static_cast<double>(weight[h]) * to_float(query[h * dim + d]) *
                                  to_float(problem.key_codes[static_cast<size_t>(s * dim + d)]));
            // Chains of dim/2 and of at most 8 + 16 additions in float32, each off by 2^-24 of the terms' sizes. One
            // wrong element of a head moves a score by about 1/(dim · heads) of them, at least 1e-4.
            bound[static_cast<size_t>(i * keys + s)] =
                static_cast<float>(size * *problem.memory.rows().index_scale(s) *
                                   (static_cast<double>(dim) / 2 + 24 + static_cast<double>(heads)) * 0x1p-24);
          }
        }
        ASSERT_TRUE(close_rows(problem.run(0, m, keys), expected, m, keys, {.bound = bound}))
            << "heads " << heads << " dim " << dim << " queries " << m << " keys " << keys;
      }
    }
  }
}

// A score depends on its query and its key alone.
TEST_P(IndexScores, QueriesAndKeysDoNotDependOnTheirNeighbours) {
  TestRandom random(2);
  for (auto [heads, dim] : {std::pair<int64_t, int64_t>{5, 64}, {64, 128}, {50, 32}}) {
    IndexProblem problem(kernels(), random, 8, heads, dim, 64);
    const auto whole = problem.run(0, 8, 64);
    for (int64_t i = 0; i < 8; ++i) {
      for (int64_t count : {1, 3, 6, 11, 63, 64}) {
        const auto row = std::span(whole).subspan(static_cast<size_t>(i * 64), static_cast<size_t>(count));
        ASSERT_TRUE(same_bits(problem.run(i, 1, count), row)) << "query " << i << ", " << count << " keys";
      }
    }
    ASSERT_TRUE(same_bits(problem.run(2, 5, 64), std::span(whole).subspan(2 * 64, 5 * 64), 64));
  }
}

TEST_P(IndexScores, NanComesThrough) {
  TestRandom random(4);
  IndexProblem problem(kernels(), random, 2, 8, 64, 64);
  problem.key_codes[static_cast<size_t>(21 * 64 + 40)] = E4M3{0x7f};
  const auto score = problem.run(0, 2, 64);
  for (size_t i = 0; i < score.size(); ++i) EXPECT_EQ(std::isnan(score[i]), i % 64 == 21) << i;
}

// relu makes plateaus of exact zeros, whose order decides the selection: they must be zeros everywhere.
TEST_P(IndexScores, NegativeProductsAreExactlyZero) {
  TestRandom random(3);
  IndexProblem problem(kernels(), random, 1, 20, 64, 64);
  for (E4M3& c : problem.codes) c.bits &= 0x7f;             // queries positive
  for (E4M3& c : problem.key_codes.span()) c.bits |= 0x80;  // keys negative
  problem.kernels.pack_index_query(problem.codes.data(), problem.weights.data(), 20, 64, problem.packed[0]->data());
  for (float x : problem.run(0, 1, 64)) EXPECT_EQ(x, 0.0f);
}

INSTANTIATE_TEST_SUITE_P(AllIsas, IndexScores, kernel_isas(), isa_test_name);

// Pushes scores in pieces and returns the chosen indices, rising.
std::vector<int32_t> stream(const Kernels& kernels, const std::vector<float>& score, int64_t k, TestRandom& random) {
  const Guarded<uint64_t> memory(static_cast<size_t>(TopK::capacity(k))),
      scratch(static_cast<size_t>(TopK::scratch(k)));
  TopK best(kernels, memory.data(), scratch.data(), k);
  for (size_t s = 0; s < score.size();) {
    const int64_t piece = std::min<int64_t>(1 + random.below(kBlockTokens), static_cast<int64_t>(score.size() - s));
    best.push(score.data() + s, piece, static_cast<int64_t>(s));
    s += static_cast<size_t>(piece);
  }
  std::vector<int32_t> index;
  for (uint64_t key : best.finish()) index.push_back(static_cast<int32_t>(candidate_index(key)));
  EXPECT_TRUE(memory.intact() && scratch.intact());
  return index;
}

class TopKStream : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { FATHOM_SKIP_UNLESS_SUPPORTED(GetParam()); }
  const Kernels& kernels() const { return kernels_for(GetParam()); }
};

TEST_P(TopKStream, IsTheSortWhateverTheTies) {
  TestRandom random(1);
  for (int round = 0; round < 400; ++round) {
    const int64_t size = 1 + random.below(900), k = 1 + random.below(200), values = 1 + random.below(40);
    std::vector<float> score(static_cast<size_t>(size));
    for (float& x : score) {
      x = static_cast<float>(random.below(values)) - static_cast<float>(values / 2);
      if (x == 0 && random.below(2)) x = -0.0f;
    }
    ASSERT_EQ(stream(kernels(), score, k, random), ref::top_k(score, k)) << "round " << round;
  }
}

TEST_P(TopKStream, RisingFallingAndConstant) {
  TestRandom random(2);
  for (int64_t k : {1, 2, 64, 100}) {
    std::vector<float> score(5000);
    for (size_t i = 0; i < score.size(); ++i) score[i] = static_cast<float>(i);  // every piece beats all before it
    EXPECT_EQ(stream(kernels(), score, k, random), ref::top_k(score, k));
    std::reverse(score.begin(), score.end());
    EXPECT_EQ(stream(kernels(), score, k, random), ref::top_k(score, k));
    std::fill(score.begin(), score.end(), 0.0f);
    EXPECT_EQ(stream(kernels(), score, k, random), ref::top_k(score, k));
    std::fill(score.begin(), score.end(), -std::numeric_limits<float>::infinity());
    EXPECT_EQ(stream(kernels(), score, k, random), ref::top_k(score, k));
  }
}

TEST_P(TopKStream, RandomScores) {
  TestRandom random(3);
  const auto score = random.normals(20000);
  for (int64_t k : {1, 7, 2048}) EXPECT_EQ(stream(kernels(), score, k, random), ref::top_k(score, k));
}

TEST_P(TopKStream, LargestOfAnyKeys) {
  TestRandom random(4);
  for (int64_t n : {1, 2, 7, 8, 9, 63, 64, 65, 66, 200, 1000, 4160}) {
    for (int64_t k : {int64_t{1}, n / 3, n / 2, n - 1, n}) {
      if (k < 1) continue;
      std::vector<uint64_t> all(static_cast<size_t>(n));
      for (size_t i = 0; i < all.size(); ++i) all[i] = (random.bits() & ~uint64_t{0xffff}) | i;  // unique
      const Guarded<uint64_t> keys(all), scratch(2 * all.size() + 16);
      std::vector<uint64_t> sorted = all;
      std::sort(sorted.begin(), sorted.end(), std::greater<>());
      const uint64_t least = sorted[static_cast<size_t>(k - 1)];
      EXPECT_EQ(kernels().keep_largest(keys.data(), n, k, scratch.data()), least);
      std::erase_if(all, [&](uint64_t key) { return key < least; });
      ASSERT_EQ(std::vector<uint64_t>(keys.data(), keys.data() + k), all) << k << " of " << n;
      EXPECT_TRUE(keys.intact() && scratch.intact());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, TopKStream, kernel_isas(), isa_test_name);

}  // namespace
}  // namespace fathom::cpu
