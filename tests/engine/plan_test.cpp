// Plans: formulas against figures worked out by hand, hardware files, the memory budget.
#include "engine/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/temp_dir.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::filesystem::path kReal = FATHOM_TEST_DATA "/config/config.json";

// One GB a second and one TFLOP/s, all of it reached: times are the figures themselves.
Hardware unit_machine() {
  Hardware h;
  h.name = "unit";
  h.memory_bytes = 1'000'000'000'000;
  h.bandwidth_gb_per_s = 1;
  h.peak_bf16_tflops = 1;
  h.bandwidth_efficiency = h.compute_efficiency = 1;
  return h;
}

Plan plan_of(const Hardware& hardware, const PlanSettings& settings) {
  const auto input = read_plan_input(kReal, settings);
  EXPECT_TRUE(input.has_value()) << input.error().message;
  return make_plan(*input, hardware);
}

TEST(Plan, AStepTakesTheLongerOfBytesAndArithmeticInEachPart) {
  const auto config = load_config(kReal);
  ASSERT_TRUE(config.has_value());
  Hardware machine = unit_machine();
  machine.peak_bf16_tflops = 1e6;  // only bytes count
  const double weights = 37.7;  // GB of one token's step: its indexer makes a key and no query
  EXPECT_NEAR(plan_step(*config, machine, {}, {}).total_seconds(), weights, 0.1);
  machine.bandwidth_gb_per_s = 1e9;
  machine.peak_bf16_tflops = 0.001;  // only arithmetic counts, at one GFLOP/s
  EXPECT_NEAR(plan_step(*config, machine, {}, {}).total_seconds(), 73.4, 0.5);
  // Twice the machine at half the efficiency is the same machine.
  machine = unit_machine();
  const double seconds = plan_step(*config, machine, {}, {.start = 9999}).total_seconds();
  machine.bandwidth_gb_per_s = machine.peak_bf16_tflops = 2;
  machine.bandwidth_efficiency = machine.compute_efficiency = 0.5;
  EXPECT_DOUBLE_EQ(plan_step(*config, machine, {}, {.start = 9999}).total_seconds(), seconds);
  // Parts do not overlap: a step is longer than either bound of the whole.
  const PlannedStep mixed = plan_step(*config, unit_machine(), {}, {.start = 9999});
  const Work total = mixed.work.total();
  EXPECT_GE(mixed.total_seconds(), 0.999 * std::max(total.bytes() * 1e-9, total.flops * 1e-12));
}

TEST(Plan, PositionsOfTheRealModel) {
  const Plan plan = plan_of(unit_machine(), {.context = 131072, .users = 1});
  ASSERT_EQ(plan.sparse.size(), plan.dense.size());
  EXPECT_EQ(plan.sparse.front().position, 1024);
  EXPECT_EQ(plan.sparse.back().position, 131072);
  const StepWork& sparse = plan.sparse.back().decode.work;
  const StepWork& dense = plan.dense.back().decode.work;
  EXPECT_NEAR(sparse[WorkPart::kIndexer].flops * 1e-9, 131, 0.5);
  EXPECT_NEAR(sparse[WorkPart::kAttention].flops * 1e-9, 34.8, 0.05);
  EXPECT_NEAR(dense[WorkPart::kAttention].flops * 1e-9, 2227, 1);
  // As far as all keys are selected the indexer only costs its projections.
  EXPECT_GT(plan.dense.front().decode.tokens_per_second(), plan.sparse.front().decode.tokens_per_second());
  EXPECT_GT(plan.sparse.back().decode.tokens_per_second(), plan.dense.back().decode.tokens_per_second());
  EXPECT_EQ(plan.sparse.back().prefill.tokens, plan.input.settings.chunk);
  // Between powers of two the context itself is the last position; a short one is the only.
  EXPECT_EQ(plan_of(unit_machine(), {.context = 5000}).dense.back().position, 5000);
  EXPECT_EQ(plan_of(unit_machine(), {.context = 100}).dense.size(), 1u);
  EXPECT_EQ(plan_of(unit_machine(), {}).dense.back().position, 163840) << "what the model was made for";
}

TEST(Plan, UsersShareWeightsButNotCaches) {
  const Plan one = plan_of(unit_machine(), {.context = 4096, .users = 1});
  const Plan many = plan_of(unit_machine(), {.context = 4096, .users = 32});
  EXPECT_EQ(many.cache_bytes, 32 * one.cache_bytes);
  EXPECT_EQ(one.cache_bytes, 4096u * 62 * (1152 + 132)) << "61 layers and the MTP layer";
  EXPECT_NEAR(many.sparse.back().decode.tokens_per_second() / one.sparse.back().decode.tokens_per_second(), 2.8, 0.2);
}

TEST(Plan, MemoryBudget) {
  Hardware machine = unit_machine();
  machine.memory_bytes = 700'000'000'000;
  const Plan fits = plan_of(machine, {.context = 131072});
  EXPECT_TRUE(fits.fits());
  EXPECT_NEAR(static_cast<double>(fits.input.weight_bytes) * 1e-9, 686, 1);
  EXPECT_EQ(fits.users_that_fit(), 1);
  EXPECT_FALSE(plan_of(machine, {.context = 131072, .users = 2}).fits());
  machine.memory_bytes = 25'000'000'000;
  const Plan small = plan_of(machine, {.context = 131072});
  EXPECT_EQ(small.users_that_fit(), 0);
  EXPECT_THAT(plan_text(small), HasSubstr("does not fit: 67"));
}

TEST(Plan, CostFollowsFromPriceAndSpeed) {
  Hardware machine = unit_machine();
  EXPECT_FALSE(cost_per_million(machine, 100).has_value());
  machine.price_per_hour = 36;
  EXPECT_DOUBLE_EQ(*cost_per_million(machine, 100), 100);  // 10,000 seconds of 0.01
  const Plan plan = plan_of(machine, {.context = 4096});
  EXPECT_THAT(plan_text(plan), HasSubstr("cost/million"));
  const auto json = nlohmann::json::parse(plan_json(plan));
  const auto& decode = json["positions"].back()["sparse"]["decode"];
  EXPECT_NEAR(decode["cost_per_million"], 36.0 / 3600 / decode["tokens_per_second"].get<double>() * 1e6, 1e-6);
  double seconds = 0;
  for (const auto& part : decode["parts"]) seconds += part["seconds"].get<double>();
  EXPECT_NEAR(seconds, decode["seconds"], 1e-9);
}

TEST(Plan, RefusesWhatTheModelCannot) {
  const auto deep = read_plan_input(kReal, {.context = 1'000'000});
  ASSERT_FALSE(deep.has_value());
  EXPECT_THAT(deep.error().message, AllOf(HasSubstr("1000000"), HasSubstr("163840")));
  EXPECT_FALSE(read_plan_input("/nonexistent", {}).has_value());
}

class HardwareFile : public ::testing::Test {
 protected:
  Result<Hardware> load(const std::string& text) {
    std::ofstream(dir_.path() / "h.json") << text;
    return load_hardware(dir_.path() / "h.json");
  }
  std::string error(const std::string& text) {
    const auto result = load(text);
    return result ? "" : result.error().message;
  }
  TempDir dir_;
};

TEST_F(HardwareFile, IsReadWithDefaults) {
  const auto h = load(R"({"name": "x", "memory_bytes": 640e9, "bandwidth_gb_per_s": 100.5, "peak_bf16_tflops": 3,
                          "price_per_hour": 0})");
  ASSERT_TRUE(h.has_value()) << h.error().message;
  EXPECT_EQ(h->memory_bytes, 640'000'000'000u);
  EXPECT_EQ(h->bandwidth_gb_per_s, 100.5);
  EXPECT_EQ(h->bandwidth_efficiency, Hardware{}.bandwidth_efficiency);
  EXPECT_THAT(h->source, HasSubstr("h.json"));
}

TEST_F(HardwareFile, EveryProblemIsReportedAtOnce) {
  EXPECT_THAT(
      error(R"({"name": 3, "memory_bytes": -1, "bandwith_gb_per_s": 1, "peak_bf16_tflops": "fast",
                        "compute_efficiency": 1.5})"),
      AllOf(HasSubstr("name: found"), HasSubstr("memory_bytes: found"), HasSubstr("bandwidth_gb_per_s: missing"),
            HasSubstr("\"bandwith_gb_per_s\": unknown"), HasSubstr("peak_bf16_tflops: found"),
            HasSubstr("price_per_hour: missing"), HasSubstr("compute_efficiency: found")));
  EXPECT_THAT(error("[]"), HasSubstr("JSON object"));
  EXPECT_THAT(error("{"), HasSubstr("not valid JSON"));
  EXPECT_FALSE(load_hardware("/nonexistent").has_value());
}

}  // namespace
}  // namespace fathom
