// Runs: stopped and resumed to the same bits, and every way in which they are refused or fail.
#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <limits>

#include "checkpoint/safetensors.h"
#include "support/compare.h"
#include "support/temp_dir.h"
#include "train/tiny_recipe.h"

namespace fathom::train {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

// Stops after some steps: the flag is read once a step.
class StopAfter : public Functions {
 public:
  StopAfter(int64_t steps) : inner_(make_plain_functions()), left_(steps) {}
  const std::atomic<bool>* flag() const { return &stop_; }

  Tensor linear(const Tensor& x, const Tensor& w) override { return inner_->linear(x, w); }
  Tensor rms_norm(const Tensor& x, const Tensor& g, double e) override { return inner_->rms_norm(x, g, e); }
  Tensor mlp(const Tensor& x, const Tensor& g, const Tensor& u, const Tensor& d) override {
    return inner_->mlp(x, g, u, d);
  }
  Tensor experts(const Tensor& x, const Tensor& g, const Tensor& u, const Tensor& d, const Tensor& e,
                 const Tensor& w) override {
    return inner_->experts(x, g, u, d, e, w);
  }
  Attention attention(const Tensor& q, const Tensor& k, const Tensor& v, double s, const KeySet& keys) override {
    return inner_->attention(q, k, v, s, keys);
  }
  Tensor index_select(const Tensor& q, const Tensor& k, const Tensor& w, int64_t n, const Segments& s) override {
    return inner_->index_select(q, k, w, n, s);
  }
  IndexLoss index_loss(const Tensor& iq, const Tensor& ik, const Tensor& iw, const Tensor& q, const Tensor& k,
                       const Tensor& l, double s, const KeySet& keys, int64_t n, const Tensor& r) override {
    return inner_->index_loss(iq, ik, iw, q, k, l, s, keys, n, r);
  }
  // Called twice for every pack, with the MTP layer.
  Tensor cross_entropy(const Tensor& h, const Tensor& head, const Tensor& t, const Tensor& w) override {
    if (--left_ == 0) stop_ = true;
    return inner_->cross_entropy(h, head, t, w);
  }

 private:
  std::unique_ptr<Functions> inner_;
  int64_t left_;
  std::atomic<bool> stop_{false};
};

class Trainer : public testing::Test {
 protected:
  Trainer() : recipe(write_recipe(tiny_json(), folder / "recipe.json")) {}

  Result<RunEnd> run(const std::string& name, bool resume = false, int64_t stop_after = -1) {
    StopAfter functions(stop_after);
    return run_training(
        {.recipe = recipe, .folder = folder / name, .resume = resume, .from = from, .stop = functions.flag()},
        functions);
  }
  static std::string bytes(const fs::path& file) { return read_file(file).value(); }
  // The log without what a clock says.
  static std::vector<nlohmann::json> log(const fs::path& file) {
    std::vector<nlohmann::json> lines;
    std::istringstream in(bytes(file));
    for (std::string line; std::getline(in, line);) {
      lines.push_back(nlohmann::json::parse(line));
      for (const char* name : {"seconds", "tokens_per_second", "memory_mb"}) lines.back().erase(name);
    }
    return lines;
  }

  TempDir folder;
  fs::path recipe;
  std::optional<fs::path> from;
};

TEST_F(Trainer, ResumedRunsHaveTheSameBits) {
  ASSERT_EQ(run("whole").value(), RunEnd::kFinished);
  int stops = 0;
  bool resume = false;
  while (true) {
    const auto end = run("cut", resume, 25);
    ASSERT_TRUE(end) << end.error().message;
    if (*end == RunEnd::kFinished) break;
    ASSERT_LT(++stops, 20);
    resume = true;
  }
  EXPECT_GE(stops, 2);
  for (const char* stage : {"pretrain", "extend", "warm-up", "sparse", "dense-twin"}) {
    const std::string file = std::string("stages/") + stage + ".safetensors";
    EXPECT_EQ(bytes(folder / "whole" / file), bytes(folder / "cut" / file)) << stage;
  }
  for (const char* file : {"state.safetensors", "export/sparse/model.safetensors", "export/dense-twin/config.json"})
    EXPECT_EQ(bytes(folder / "whole" / file), bytes(folder / "cut" / file)) << file;
  EXPECT_EQ(log(folder / "whole" / "log.jsonl"), log(folder / "cut" / "log.jsonl"));
}

TEST_F(Trainer, StagesDoWhatTheySay) {
  ASSERT_TRUE(run("run"));
  const auto tensors = [&](const char* stage) {
    return SafetensorsFile::open(folder / "run" / "stages" / (std::string(stage) + ".safetensors")).value();
  };
  const auto before = tensors("extend"), warm = tensors("warm-up"), sparse = tensors("sparse"),
             twin = tensors("dense-twin");
  for (const TensorEntry& t : before.tensors()) {
    if (t.name.ends_with("e_score_correction_bias")) continue;  // steps of ±γ, which may cancel
    const bool indexer = t.name.find(".indexer.") != std::string::npos;
    const auto equal = [&](const SafetensorsFile& a, const SafetensorsFile& b) {
      return std::ranges::equal(a.find(t.name)->bytes, b.find(t.name)->bytes);
    };
    EXPECT_EQ(equal(before, warm), !indexer) << t.name << ": the warm-up trains the indexer alone";
    EXPECT_FALSE(equal(warm, sparse)) << t.name;
    EXPECT_EQ(equal(warm, twin), indexer) << t.name << ": the twin has no indexer to train";
  }
  const auto lines = log(folder / "run" / "log.jsonl");
  ASSERT_EQ(lines.size(), 34u);
  EXPECT_LT(lines[11]["loss"], lines[0]["loss"].get<double>() - 0.5);
  EXPECT_FALSE(lines[0].contains("kl"));
  EXPECT_GT(lines[16]["recall"], 0.1);
  EXPECT_TRUE(lines[22].contains("recall")) << "the probe of a sparse stage";
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(lines[22 + i]["tokens"], lines[28 + i]["tokens"]) << "the twin's data";
  EXPECT_THAT(bytes(folder / "run" / "report.html"), AllOf(HasSubstr("dense-twin"), HasSubstr("<svg")));
}

// A killed run has written lines after its last state, the last of them maybe in part.
TEST_F(Trainer, LogIsCutBackToTheState) {
  ASSERT_EQ(run("cut", false, 9).value(), RunEnd::kStopped);
  auto line = log(folder / "cut" / "log.jsonl").back();
  line["step"] = line["step"].get<int64_t>() + 1;
  for (const char* name : {"seconds", "tokens_per_second", "memory_mb", "loss"}) line[name] = 1;
  std::ofstream(folder / "cut" / "log.jsonl", std::ios::app) << line.dump() << "\n" << line.dump().substr(0, 20);
  ASSERT_EQ(run("cut", true).value(), RunEnd::kFinished);
  ASSERT_EQ(run("whole").value(), RunEnd::kFinished);
  EXPECT_EQ(log(folder / "cut" / "log.jsonl"), log(folder / "whole" / "log.jsonl"));
}

TEST_F(Trainer, ConversationsStayAsTheyWere) {
  const auto line = [](int turns) {
    std::string messages;
    for (int i = 0; i < turns; ++i)
      messages +=
          std::string(i ? "," : "") + R"({"role":"user","content":"hi"},{"role":"assistant","content":"hello"})";
    return R"({"messages":[)" + messages + "]}\n";
  };
  const fs::path file = folder / "chat.jsonl";
  std::ofstream(file) << line(1) << line(2) << line(400);
  auto json = tiny_json();
  json["data"].erase("tasks");
  json["data"]["chat"] = "chat.jsonl";
  for (auto& stage : json["stages"])
    for (const char* of_tasks : {"weights", "thinking_percent", "multi_turn_percent", "max_length", "length"})
      stage.erase(of_tasks);
  write_recipe(json, recipe);
  testing::internal::CaptureStderr();
  ASSERT_EQ(run("chat", false, 3).value(), RunEnd::kStopped);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("1 of 3 conversations are left out"));
  std::ofstream(file, std::ios::app) << line(3);
  EXPECT_THAT(run("chat", true).error().message, AllOf(HasSubstr("other data"), HasSubstr("chat.jsonl has changed")));
  std::ofstream(file) << line(1) << line(2) << line(400);
  EXPECT_TRUE(run("chat", true, 3));
}

TEST_F(Trainer, WhatIsRefused) {
  EXPECT_THAT(run("none", true).error().message, HasSubstr("nothing to resume"));
  ASSERT_TRUE(run("run", false, 3));
  EXPECT_THAT(run("run").error().message, AllOf(HasSubstr("holds a training run already"), HasSubstr("--resume")));
  auto json = tiny_json();
  json["seed"] = 2;
  json["optimizer"]["beta1"] = 0.8;
  write_recipe(json, recipe);
  EXPECT_THAT(run("run", true).error().message, AllOf(HasSubstr("another recipe"), HasSubstr("optimizer, seed")));
  write_recipe(tiny_json(), recipe);
  const std::string data = bytes(folder / "run" / "data.json");
  std::ofstream(folder / "run" / "data.json") << R"({"tasks_version": 1})";
  EXPECT_THAT(run("run", true).error().message, AllOf(HasSubstr("other data"), HasSubstr("draws other tasks")));
  std::ofstream(folder / "run" / "data.json") << data;
  from = folder / "run";
  EXPECT_THAT(run("run", true).error().message, HasSubstr("--from and --resume"));
  EXPECT_THAT(run("other").error().message, HasSubstr("config.json"));
  from.reset();
  EXPECT_THAT(run("other", true).error().message, HasSubstr("nothing to resume")) << "with weights of its own choice";
  EXPECT_THAT(run("recipe.json").error().message, HasSubstr("is no folder"));
  fs::create_directory(folder / "full");
  std::ofstream(folder / "full" / "file") << "x";
  EXPECT_THAT(run("full").error().message, HasSubstr("is not empty"));
  json = tiny_json();
  json["model"]["vocab_size"] = 200;
  write_recipe(json, recipe);
  EXPECT_THAT(run("small").error().message, HasSubstr("vocab_size is 200"));
  EXPECT_FALSE(fs::exists(folder / "small")) << "so that the same command works once the recipe does";
  fs::remove(recipe);
  EXPECT_THAT(run("gone").error().message, HasSubstr("No such file"));
}

TEST_F(Trainer, BrokenStateIsNamed) {
  ASSERT_TRUE(run("run", false, 3));
  const fs::path state = folder / "run" / "state.safetensors";
  const std::string sound = bytes(state);
  std::ofstream(state, std::ios::binary) << sound.substr(0, sound.size() / 2);
  EXPECT_THAT(run("run", true).error().message, HasSubstr("state.safetensors"));
  std::ofstream(state, std::ios::binary) << sound;
  EXPECT_TRUE(run("run", true));
}

TEST_F(Trainer, NotANumberStopsBeforeItIsApplied) {
  ASSERT_TRUE(run("run", false, 3));
  const fs::path state = folder / "run" / "state.safetensors";
  std::string broken = bytes(state);
  {
    const auto file = SafetensorsFile::open(state).value();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const uint64_t data =
        broken.size() - static_cast<uint64_t>(file.tensors().back().bytes.data() + file.tensors().back().bytes.size() -
                                              file.find("model.norm.weight")->bytes.data());
    std::memcpy(broken.data() + data, &nan, sizeof nan);
  }
  std::ofstream(state, std::ios::binary) << broken;
  const auto end = run("run", true);
  ASSERT_FALSE(end);
  EXPECT_THAT(end.error().message,
              AllOf(HasSubstr("stage pretrain, step 2"), HasSubstr("nan"), HasSubstr("learning_rate.peak")));
  EXPECT_EQ(bytes(state), broken) << "nothing was saved over it";
}

TEST_F(Trainer, FullDiskLosesNothing) {
  ASSERT_EQ(run("run", false, 9).value(), RunEnd::kStopped);
  const fs::path state = folder / "run" / "state.safetensors";
  const std::string before = bytes(state);
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small{1'000'000, limit.rlim_max};  // the log fits, the state of 2 MB does not
  std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const auto end = run("run", true, 9);
  setrlimit(RLIMIT_FSIZE, &limit);
  ASSERT_FALSE(end);
  EXPECT_THAT(end.error().message, AllOf(HasSubstr("state.safetensors"), HasSubstr("cannot write")));
  EXPECT_EQ(bytes(state), before);
  for (const auto& entry : fs::directory_iterator(folder / "run"))
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << entry.path();
  ASSERT_EQ(run("run", true).value(), RunEnd::kFinished);
  ASSERT_EQ(run("whole").value(), RunEnd::kFinished);
  EXPECT_EQ(bytes(state), bytes(folder / "whole" / "state.safetensors"));
}

TEST_F(Trainer, FineTuningBeginsWithACheckpoint) {
  ASSERT_TRUE(run("base"));
  std::ofstream(folder / "chat.jsonl")
      << R"({"messages":[{"role":"user","content":"ping"},{"role":"assistant","content":"pong"}]})"
      << "\n";
  auto json = tiny_json();
  json["data"] = {{"chat", (folder / "chat.jsonl").string()}};
  json["stages"] = {json["stages"][3]};
  json["stages"][0]["rope_scaling"] = tiny_json()["stages"][1]["rope_scaling"];
  json["stages"][0]["max_position_embeddings"] = 1024;
  json["stages"][0]["steps"] = 30;
  json["stages"][0]["learning_rate"] = {{"peak", 5e-3}, {"warmup_steps", 2}};
  write_recipe(json, recipe);
  from = folder / "base" / "export" / "dense-twin";  // without an indexer: that part begins at random
  const auto end = run("tuned");
  ASSERT_TRUE(end) << end.error().message;
  const auto lines = log(folder / "tuned" / "log.jsonl");
  EXPECT_LT(lines.back()["loss"], 0.1);
  const auto start = SafetensorsFile::open(folder / "tuned" / "start.safetensors").value();
  const auto base = SafetensorsFile::open(folder / "base" / "stages" / "dense-twin.safetensors").value();
  const auto first = [](const SafetensorsFile& f, const char* name) {
    float x;
    std::memcpy(&x, f.find(name)->bytes.data(), 4);
    return x;
  };
  EXPECT_NEAR(first(start, "model.norm.weight"), first(base, "model.norm.weight"), 0.005) << "as BF16 has it";
}

}  // namespace
}  // namespace fathom::train
