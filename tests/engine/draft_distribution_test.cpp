// Sampled answers with drafts and without, of different seeds, are draws from one distribution: a two-sample test of the tokens
// at each place. (That the same seed gives the same text, drafted or not, is batcher_test's.)
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <boost/math/distributions/chi_squared.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "engine/batcher.h"

namespace fathom {
namespace {

constexpr int64_t kAnswers = 20480, kPlaces = 4;
// Five tests of true hypotheses, of which one in a thousand such suites would fail by chance; seeds are fixed.
constexpr double kImprobable = 0.001 / 5;

using Sample = std::vector<std::array<int32_t, kPlaces>>;  // the first tokens of each answer

struct Drawn {
  Sample answers;
  int64_t drafted = 0, accepted = 0;
};

Drawn draw(Engine& engine, bool draft, uint64_t seed) {
  constexpr int64_t kChoices = 512;
  // Every step takes as long as any other: drafting always pays.
  BatcherClock::time_point time{};
  const auto now = [&] { return time += std::chrono::milliseconds(1); };
  Batcher batcher(engine, {.max_running = 128, .draft = draft, .now = now});
  Drawn drawn;
  for (int64_t begin = 0; begin < kAnswers; begin += kChoices) {
    BatchRequest request;
    request.generation.prompt = engine.tokenizer().encode("<｜begin▁of▁sentence｜><｜User｜>Why").value();
    request.generation.sampling = {.temperature = 1.4, .seed = seed + static_cast<uint64_t>(begin)};
    request.generation.max_tokens = kPlaces;
    request.generation.ignore_eos = true;
    request.choices = kChoices;
    request.on_done = [&](int64_t, const GenerationResult& result) {
      auto& answer = drawn.answers.emplace_back();
      for (size_t i = 0; i < answer.size(); ++i) answer[i] = result.tokens[i].id;
    };
    EXPECT_TRUE(batcher.submit(std::move(request)));
    while (batcher.step()) {
    }
  }
  drawn.drafted = batcher.stats().drafted;
  drawn.accepted = batcher.stats().accepted;
  return drawn;
}

// Pearson's test that two samples of equal size are of one distribution: how probable as large a difference is if they are.
// What came fewer than 100 times in both together is one class.
double probability_of(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  std::map<int32_t, std::pair<double, double>> counts;
  for (const int32_t id : a) ++counts[id].first;
  for (const int32_t id : b) ++counts[id].second;
  std::pair<double, double> rest;
  double statistic = 0;
  int64_t classes = 0;
  const auto add = [&](double x, double y) {
    if (x + y == 0) return;
    statistic += (x - y) * (x - y) / (x + y);
    ++classes;
  };
  for (const auto& [id, n] : counts) {
    if (n.first + n.second >= 100)
      add(n.first, n.second);
    else
      rest.first += n.first, rest.second += n.second;
  }
  add(rest.first, rest.second);
  EXPECT_GT(classes, 5) << "too few to say anything";
  return cdf(complement(boost::math::chi_squared(static_cast<double>(classes - 1)), statistic));
}

std::vector<int32_t> at(const Sample& sample, int64_t place) {
  std::vector<int32_t> ids;
  for (const auto& answer : sample) ids.push_back(answer[static_cast<size_t>(place)]);
  return ids;
}

class DraftDistribution : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto engine = Engine::open(FATHOM_MODELS "/sample", {.threads = 1, .context = 64, .cache = 64 * 140});
    if (!engine) throw std::runtime_error(engine.error().message);
    with_ = std::make_unique<Drawn>(draw(**engine, true, 1));
    without_ = std::make_unique<Drawn>(draw(**engine, false, 1 << 20));
  }
  static void TearDownTestSuite() { with_.reset(), without_.reset(); }
  static std::unique_ptr<Drawn> with_, without_;
};
std::unique_ptr<Drawn> DraftDistribution::with_, DraftDistribution::without_;

TEST_F(DraftDistribution, IsTheOneWithoutDrafts) {
  ASSERT_EQ(with_->answers.size(), static_cast<size_t>(kAnswers));
  ASSERT_EQ(without_->answers.size(), static_cast<size_t>(kAnswers));
  // Enough of both kinds that either's fault would show.
  EXPECT_GT(with_->accepted, kAnswers / 20);
  EXPECT_GT(with_->drafted - with_->accepted, kAnswers / 20);
  EXPECT_EQ(without_->drafted, 0);
  for (int64_t place = 0; place < kPlaces; ++place)
    EXPECT_GT(probability_of(at(with_->answers, place), at(without_->answers, place)), kImprobable) << place;
  // Two tokens together: a draft depends on the one before.
  const auto pairs = [](const Sample& sample) {
    std::vector<int32_t> ids;
    for (const auto& answer : sample) ids.push_back((answer[1] << 16) ^ answer[2]);
    return ids;
  };
  EXPECT_GT(probability_of(pairs(with_->answers), pairs(without_->answers)), kImprobable);
}

// The test would see a draft that is taken in one of twelve answers whatever was sampled.
TEST_F(DraftDistribution, AFewWrongDraftsWouldBeSeen) {
  std::vector<int32_t> biased = at(with_->answers, 2);
  std::map<int32_t, int64_t> counts;
  for (const int32_t id : biased) ++counts[id];
  const int32_t best = std::ranges::max_element(counts, {}, [](const auto& entry) { return entry.second; })->first;
  std::mt19937_64 random(5);
  for (int32_t& id : biased)
    if (random() % 12 == 0) id = best;
  EXPECT_LT(probability_of(biased, at(without_->answers, 2)), kImprobable);
}

}  // namespace
}  // namespace fathom
