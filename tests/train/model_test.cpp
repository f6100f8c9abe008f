// The model in training: packed sequences do not see each other, gradients go where they should, one batch can be
// learnt by heart.
#include "train/model.h"

#include <gtest/gtest.h>

#include "train/optimizer.h"
#include "train/tiny_recipe.h"

namespace fathom::train {
namespace {

TokenExample example(std::initializer_list<int32_t> tokens) {
  return {tokens, std::vector<float>(tokens.size(), 1.0f)};
}

class ModelTest : public testing::Test {
 protected:
  ModelTest() : recipe(tiny_recipe()), functions(make_plain_functions()) {
    config = recipe.stages[3].config;
    config.index_topk = 3;
    parameters = Parameters::initialise(config, 7, 0.2);  // large enough that attention is far from uniform
  }
  void learn_all() {
    for (Parameter& p : parameters.all()) p.value.requires_grad_(p.trained);
  }
  static PackTensors pack(std::initializer_list<TokenExample> examples) {
    Pack p;
    for (const TokenExample& e : examples) p.append(e);
    return PackTensors(p);
  }

  Recipe recipe;
  ModelConfig config;
  Parameters parameters;
  std::unique_ptr<Functions> functions;
};

const TokenExample kFirst = example({10, 11, 12, 13, 14, 15, 16, 17}), kSecond = example({40, 41, 42, 43, 44, 45}),
                   kOther = example({60, 61, 62, 63, 64, 65});

TEST_F(ModelTest, OtherSequencesOfAPackChangeNothing) {
  for (const bool sparse : {false, true}) {
    Model model(config, parameters, *functions);
    const ForwardOptions options{.sparse_attention = sparse, .index_loss = true, .mtp = true};
    const Forward alone = model.forward(pack({kFirst}), options);
    const Forward with = model.forward(pack({kSecond, kFirst}), options);
    const Forward other = model.forward(pack({kOther, kFirst}), options);
    const auto rows = [](const Tensor& x) { return x.narrow(0, 5, 7); };
    // Rounding apart: a matrix product may sum otherwise for another number of rows, and an expert's rows are those of
    // all sequences.
    EXPECT_TRUE(torch::allclose(rows(with.hidden), alone.hidden, 1e-4, 1e-5)) << sparse;
    EXPECT_TRUE(torch::allclose(rows(with.mtp_hidden), alone.mtp_hidden, 1e-4, 1e-5)) << sparse;
    EXPECT_TRUE(torch::allclose(rows(with.hidden), rows(other.hidden), 1e-4, 1e-5)) << sparse;
    EXPECT_TRUE(torch::allclose(rows(with.mtp_hidden), rows(other.mtp_hidden), 1e-4, 1e-5)) << sparse;
    EXPECT_FALSE(torch::allclose(with.hidden.narrow(0, 0, 5), other.hidden.narrow(0, 0, 5))) << "they do differ";
  }
}

TEST_F(ModelTest, NoGradientReachesOtherSequences) {
  learn_all();
  for (const bool sparse : {false, true}) {
    Model model(config, parameters, *functions);
    const auto gradient = [&](const TokenExample& neighbour) {
      for (Parameter& p : parameters.all()) p.value.mutable_grad() = Tensor();
      const Forward out = model.forward(pack({neighbour, kFirst}), {.sparse_attention = sparse, .mtp = true});
      const Tensor mine = torch::arange(12) >= 5;
      (out.hidden * mine.unsqueeze(1)).square().sum().backward();
      return parameters.at("model.embed_tokens.weight").grad().clone();
    };
    const Tensor with = gradient(kSecond), other = gradient(kOther);
    EXPECT_EQ(with.narrow(0, 40, 6).abs().max().item<float>(), 0) << sparse;
    EXPECT_GT(with.narrow(0, 10, 7).abs().max().item<float>(), 0) << sparse;
    EXPECT_TRUE(torch::allclose(with, other, 1e-4, 1e-6)) << sparse;
  }
}

TEST_F(ModelTest, IndexerLearnsFromItsLossAlone) {
  learn_all();
  for (const bool sparse : {false, true}) {
    Model model(config, parameters, *functions);
    Forward out = model.forward(pack({kFirst, kSecond}), {.sparse_attention = sparse, .index_loss = true, .mtp = true});
    const auto sums = [&] {
      double indexer = 0, rest = 0;
      for (Parameter& p : parameters.all()) {
        if (p.value.grad().defined()) (p.indexer ? indexer : rest) += p.value.grad().abs().sum().item<double>();
        p.value.mutable_grad() = Tensor();
      }
      return std::pair(indexer, rest);
    };
    (out.lm + out.mtp).backward({}, true);
    const auto [indexer_of_lm, rest_of_lm] = sums();
    EXPECT_EQ(indexer_of_lm, 0) << sparse;
    EXPECT_GT(rest_of_lm, 0) << sparse;
    out.kl.backward();
    const auto [indexer_of_kl, rest_of_kl] = sums();
    EXPECT_GT(indexer_of_kl, 0) << sparse;
    EXPECT_EQ(rest_of_kl, 0) << sparse;
  }
}

TEST_F(ModelTest, SelectionOfEverythingIsDense) {
  config.index_topk = 8;
  Model model(config, parameters, *functions);
  const PackTensors both = pack({kFirst, kSecond});
  const Forward dense = model.forward(both, {.mtp = true}),
                sparse = model.forward(both, {.sparse_attention = true, .mtp = true});
  // Absorbed and un-absorbed attention are the same function.
  EXPECT_TRUE(torch::allclose(sparse.hidden, dense.hidden, 1e-4, 1e-5));
  EXPECT_TRUE(torch::allclose(sparse.mtp_hidden, dense.mtp_hidden, 1e-4, 1e-5));
  EXPECT_FALSE(sparse.selected.empty());
}

TEST_F(ModelTest, OneBatchIsLearntByHeart) {
  for (const bool sparse : {false, true}) {
    parameters = Parameters::initialise(config, 7, 0.05);
    learn_all();
    Model model(config, parameters, *functions);
    AdamW optimizer(parameters, {.weight_decay = 0});
    const PackTensors batch = pack({kFirst, kSecond, kOther});
    double first = 0, last = 0;
    for (int step = 0; step < 80; ++step) {
      Forward out = model.forward(batch, {.sparse_attention = sparse, .mtp = true});
      last = out.lm.item<double>() / 17;
      if (step == 0) first = last;
      (out.lm / 17 + out.mtp / 14).backward();
      optimizer.step(5e-3, optimizer.gradient_norm());
    }
    EXPECT_GT(first, 4) << sparse;
    EXPECT_LT(last, 0.05) << sparse;
  }
}

TEST_F(ModelTest, AdamWIsTheEquation) {
  learn_all();
  const std::string name = "model.norm.weight", matrix = "lm_head.weight";
  AdamW optimizer(parameters, {.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.5, .clip_norm = 1});
  double m = 0, v = 0, x = 1, w = parameters.at(matrix)[0][0].item<double>(), mw = 0, vw = 0;
  for (int n = 1; n <= 3; ++n) {
    parameters.at(name).mutable_grad() = torch::full_like(parameters.at(name).detach(), 0.25 * n);
    Tensor g = torch::zeros_like(parameters.at(matrix).detach());
    g[0][0] = 3.0;
    parameters.at(matrix).mutable_grad() = g;
    const double norm = optimizer.gradient_norm();
    EXPECT_NEAR(norm, std::sqrt(64 * 0.0625 * n * n + 9), 1e-6);
    optimizer.step(0.1, norm);
    const auto update = [&](double& value, double& m1, double& v1, double gradient, double decay) {
      m1 = 0.8 * m1 + 0.2 * gradient / norm;
      v1 = 0.9 * v1 + 0.1 * gradient / norm * gradient / norm;
      const double step = m1 / (1 - std::pow(0.8, n)) / (std::sqrt(v1 / (1 - std::pow(0.9, n))) + 1e-3);
      value -= 0.1 * (step + decay * value);
    };
    update(x, m, v, 0.25 * n, 0);
    update(w, mw, vw, 3, 0.5);
  }
  EXPECT_NEAR(parameters.at(name)[3].item<double>(), x, 1e-5);
  EXPECT_NEAR(parameters.at(matrix)[0][0].item<double>(), w, 1e-5);
}

TEST_F(ModelTest, InitialValuesFollowFromSeedAndName) {
  const Parameters again = Parameters::initialise(config, 7, 0.2), other = Parameters::initialise(config, 8, 0.2);
  EXPECT_TRUE(torch::equal(again.at("lm_head.weight"), parameters.at("lm_head.weight")));
  EXPECT_FALSE(torch::equal(other.at("lm_head.weight"), parameters.at("lm_head.weight")));
  ModelConfig shallow = config;
  shallow.num_hidden_layers = 1;
  EXPECT_TRUE(
      torch::equal(Parameters::initialise(shallow, 7, 0.2).at("lm_head.weight"), parameters.at("lm_head.weight")));
}

}  // namespace
}  // namespace fathom::train
