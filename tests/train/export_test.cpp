// What is exported is what was trained: the engine and the trainer agree on its logits.
#include "train/export.h"

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "engine/trace.h"
#include "support/compare.h"
#include "support/temp_dir.h"
#include "train/model.h"
#include "train/tiny_recipe.h"

namespace fathom::train {
namespace {

constexpr int64_t kRows = 60;

class Export : public testing::Test {
 protected:
  Export() : recipe(tiny_recipe()), functions(make_plain_functions()) {
    for (int32_t i = 0; i < kRows + 1; ++i) example.tokens.push_back((i * i * 7 + 3 * i) % 300 + 20);
    example.weight.assign(example.tokens.size(), 1);
  }

  struct Sides {
    TraceRecording engine;
    Forward trainer;
    std::vector<float> logits, mtp_logits;
  };

  // Random weights exported by that stage's config, read back by both.
  Sides compute(ModelConfig config, std::optional<ModelConfig> trained = std::nullopt) {
    const Parameters made = Parameters::initialise(trained.value_or(config), 5, 0.15);
    for (const Parameter& p : made.all())
      if (p.value.dim() == 1) p.value.add_(torch::linspace(-0.2, 0.2, p.value.size(0)));  // gains and biases matter too
    EXPECT_TRUE(export_checkpoint(folder / "model", config, made, recipe));
    const auto store = WeightStore::open(folder / "model").value();
    EXPECT_EQ(store->config(), config);
    ThreadPool threads(2);
    TraceSettings settings;
    settings.runner.isa = Isa::kReference;
    settings.latent_format = LatentFormat::kF32;
    const auto tokens = std::span(example.tokens).first(kRows);
    Sides sides{run_trace(*store, threads, tokens, settings).value(), {}, {}, {}};

    Parameters read = Parameters::initialise(config, 99, 0.5);
    EXPECT_TRUE(read.load_checkpoint(folder / "model", config));
    Model model(config, read, *functions);
    Pack pack;
    pack.append(example);
    // The engine rounds the indexer's keys and queries to FP8: near ties are decided otherwise. What is compared is
    // what follows from its choice; how far the choices agree is the last test's matter.
    std::vector<Tensor> selected;
    if (config.sparse()) selected = selections(sides.engine, config);
    const torch::NoGradGuard guard;
    sides.trainer = model.forward(
        PackTensors(pack),
        {.sparse_attention = config.sparse(), .mtp = true, .selected = config.sparse() ? &selected : nullptr});
    const auto flat = [](const Tensor& x) {
      const Tensor c = x.contiguous();
      return std::vector<float>(c.data_ptr<float>(), c.data_ptr<float>() + c.numel());
    };
    sides.logits = flat(model.logits(sides.trainer.hidden));
    sides.mtp_logits = flat(model.logits(sides.trainer.mtp_hidden).narrow(0, 0, kRows - 1));
    return sides;
  }

  static std::vector<Tensor> selections(const TraceRecording& trace, const ModelConfig& config) {
    std::vector<Tensor> out;
    for (int64_t layer = 0; layer < config.total_layers(); ++layer) {
      const auto& value = trace.tensors().at(fmt::format("selected.{}", layer));
      Tensor rows = torch::full({kRows, config.index_topk}, -1, torch::kInt32);
      rows[kRows - 1][0] = 0;  // the MTP layer has one row fewer: any choice will do
      for (int64_t t = 0; t < value.rows; ++t)
        for (int32_t s = 0, n = 0; s < value.cols; ++s)
          if (value.row<uint8_t>(t)[s]) rows.data_ptr<int32_t>()[t * config.index_topk + n++] = s;
      out.push_back(rows);
    }
    return out;
  }

  static std::span<const float> floats(const TraceRecording& trace, const char* name) {
    const auto& value = trace.tensors().at(name);
    return {reinterpret_cast<const float*>(value.bytes.data()), static_cast<size_t>(value.rows * value.cols)};
  }

  // Both compute in float32, in other orders: 1e-4 of a row's largest logit is some tens of roundings through three
  // layers.
  static void expect_agreement(const Sides& sides, const ModelConfig& config) {
    EXPECT_TRUE(close_rows(sides.logits, floats(sides.engine, "logits"), kRows, config.vocab_size, {.relative = 1e-4}));
    EXPECT_TRUE(close_rows(sides.mtp_logits, floats(sides.engine, "mtp_logits"), kRows - 1, config.vocab_size,
                           {.relative = 1e-4}));
  }

  Recipe recipe;
  std::unique_ptr<Functions> functions;
  TokenExample example;
  TempDir folder;
};

TEST_F(Export, SparseFp8Agrees) {
  const ModelConfig& config = recipe.stages[3].config;
  expect_agreement(compute(config), config);
}

TEST_F(Export, SparseBf16WithoutYarnAgrees) {
  ModelConfig config = recipe.stages[3].config;
  config.fp8 = config.ue8m0_activations = false;
  config.rope_scaling.reset();
  expect_agreement(compute(config), config);
}

TEST_F(Export, DenseTwinLeavesTheIndexerOut) {
  const ModelConfig& config = recipe.stages[4].config;
  ASSERT_FALSE(config.sparse());
  expect_agreement(compute(config, recipe.stages[3].config), config);
  const auto file = SafetensorsFile::open(folder / "model" / "model.safetensors").value();
  for (const TensorEntry& t : file.tensors()) EXPECT_EQ(t.name.find("indexer"), std::string::npos);
}

TEST_F(Export, SelectionsAgreeButForNearTies) {
  const ModelConfig& config = recipe.stages[3].config;
  const Sides sides = compute(config);
  const auto store = WeightStore::open(folder / "model").value();
  Parameters read = Parameters::initialise(config, 99, 0.5);
  ASSERT_TRUE(read.load_checkpoint(folder / "model", config));
  Model model(config, read, *functions);
  Pack pack;
  pack.append(example);
  const torch::NoGradGuard guard;
  const Forward own = model.forward(PackTensors(pack), {.sparse_attention = true});
  // The first layer: later ones read what earlier choices made. FP8 has three bits of mantissa, so some of 16 of up to
  // 60 keys trade places at the edge; a wrong rotation or norm leaves little more than chance.
  const Tensor theirs = selections(sides.engine, config)[0], ours = own.selected[0];
  int64_t same = 0, all = 0;
  for (int64_t t = 0; t < kRows; ++t)
    for (int64_t i = 0; i < config.index_topk; ++i) {
      const int32_t s = ours[t][i].item<int32_t>();
      if (s < 0) continue;
      ++all;
      same += (theirs[t] == s).any().item<bool>();
    }
  EXPECT_GT(static_cast<double>(same), 0.95 * static_cast<double>(all));
}

TEST_F(Export, ReplacesAnOlderOneAndLeavesNothingBehind) {
  const Parameters p = Parameters::initialise(recipe.model, 1, 0.02);
  ASSERT_TRUE(export_checkpoint(folder / "a" / "m", recipe.model, p, recipe));
  ASSERT_TRUE(export_checkpoint(folder / "a" / "m", recipe.model, p, recipe));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / "a"), {}), 1);
  EXPECT_TRUE(Tokenizer::load(folder / "a" / "m"));
}

TEST_F(Export, OtherSizesAreNamed) {
  const Parameters p = Parameters::initialise(recipe.model, 1, 0.02);
  ASSERT_TRUE(export_checkpoint(folder / "m", recipe.model, p, recipe));
  ModelConfig wider = recipe.model;
  wider.hidden_size = 128;
  wider.index_n_heads = 4;
  Parameters other = Parameters::initialise(wider, 1, 0.02);
  const Status loaded = other.load_checkpoint(folder / "m", wider);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("hidden_size: found 64"), std::string::npos) << loaded.error().message;
  EXPECT_NE(loaded.error().message.find("index_n_heads: found 2"), std::string::npos) << loaded.error().message;
}

}  // namespace
}  // namespace fathom::train
