#include "engine/plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/quote.h"
#include "checkpoint/json_text.h"
#include "checkpoint/problems.h"
#include "checkpoint/summary.h"
#include "engine/machine.h"
#include "model/runner.h"

namespace fathom {

namespace {

// Most of what the arenas hold while a layer works on a chunk: its activations in float32, about twice for what is
// packed for the kernels.
uint64_t scratch_estimate(const ModelConfig& c, int64_t chunk) {
  const int64_t attention = c.num_attention_heads * (c.qk_head_dim() + c.kv_lora_rank + c.v_head_dim) +
                            c.index_n_heads * c.index_head_dim + c.index_topk;
  const int64_t experts = 2 * (c.num_experts_per_tok + c.n_shared_experts) * c.moe_intermediate_size;
  const int64_t row = 4 * c.hidden_size + attention + std::max(experts, 2 * c.intermediate_size);
  return static_cast<uint64_t>(2 * 4 * row * chunk);
}

std::vector<int64_t> positions_to(int64_t context) {
  std::vector<int64_t> positions;
  for (int64_t p = 1024; p < context; p *= 2) positions.push_back(p);
  positions.push_back(context);
  return positions;
}

std::vector<PlannedPosition> plan_positions(const ModelConfig& config, const Hardware& hardware, const PlanSettings& s,
                                            bool dense) {
  const WorkSettings work{dense, s.latent_format};
  std::vector<PlannedPosition> rows;
  for (const int64_t position : positions_to(s.context)) {
    const int64_t count = std::min(s.chunk, position);
    rows.push_back({position, plan_step(config, hardware, work, {1, position - count, count, 0}),
                    plan_step(config, hardware, work, {s.users, position - 1, 1, s.users})});
  }
  return rows;
}

// The fields of a hardware file.
class HardwareReader {
 public:
  HardwareReader(const nlohmann::json& json, Problems& problems) : json_(json), problems_(problems) {}

  void text(const char* name, std::string& value) {
    const nlohmann::json* json = find(name, true);
    if (!json) return;
    if (json->is_string() && !json->get<std::string>().empty())
      value = json->get<std::string>();
    else
      wrong(name, *json, "a text that is not empty");
  }
  // least < value ≤ most, or = least where it is `closed`.
  void number(const char* name, double& value, double least, double most, bool required, bool closed = false) {
    const nlohmann::json* json = find(name, required);
    if (!json) return;
    const double found = json->is_number() ? json->get<double>() : -1;
    if (json->is_number() && found <= most && (found > least || (closed && found == least)))
      value = found;
    else
      wrong(name, *json, fmt::format("a number {} {:g} and at most {:g}", closed ? "from" : "above", least, most));
  }
  void finish() {
    for (const auto& [name, value] : json_.items())
      if (std::find(known_.begin(), known_.end(), name) == known_.end())
        problems_.add("{}: unknown field; expected are {}", in_quotes(name), fmt::join(known_, ", "));
  }

 private:
  const nlohmann::json* find(const char* name, bool required) {
    known_.emplace_back(name);
    const auto it = json_.find(name);
    if (it != json_.end()) return &*it;
    if (required) problems_.add("{}: missing", name);
    return nullptr;
  }
  void wrong(const char* name, const nlohmann::json& json, std::string_view expected) {
    problems_.add("{}: found {}, expected {}", name,
                  in_quotes(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)), expected);
  }

  const nlohmann::json& json_;
  Problems& problems_;
  std::vector<std::string> known_;
};

}  // namespace

Result<Hardware> load_hardware(const std::filesystem::path& file) {
  FATHOM_TRY(const std::string text, read_file(file, size_t{1} << 20));
  const auto json = parse_json(text);
  if (!json) return fail("{}: {}", file.string(), json.error().message);
  if (!json->is_object()) return fail("{}: expected a JSON object that describes a machine", file.string());
  Hardware h;
  Problems problems;
  HardwareReader reader(*json, problems);
  double memory = 0;
  reader.text("name", h.name);
  reader.number("memory_bytes", memory, 0, 1e18, true);
  reader.number("bandwidth_gb_per_s", h.bandwidth_gb_per_s, 0, 1e9, true);
  reader.number("peak_bf16_tflops", h.peak_bf16_tflops, 0, 1e9, true);
  reader.number("price_per_hour", h.price_per_hour, 0, 1e9, true, /*closed=*/true);
  reader.number("bandwidth_efficiency", h.bandwidth_efficiency, 0, 1, false);
  reader.number("compute_efficiency", h.compute_efficiency, 0, 1, false);
  reader.finish();
  if (!problems.empty()) return tl::unexpected(problems.error(file.string()));
  h.memory_bytes = static_cast<uint64_t>(memory);
  h.source = fmt::format("as {} says", file.string());
  return h;
}

Hardware probe_hardware(ThreadPool& threads, Isa isa) {
  const Machine machine = describe_machine();
  const MachineLimits limits = MachineProbe(threads, isa).limits();
  Hardware h;
  h.name = machine.cpu;
  h.source = fmt::format("probed now with {} threads, {}", threads.threads(), isa_name(isa));
  h.memory_bytes = machine.memory_bytes;
  h.bandwidth_gb_per_s = limits.stream_gb_per_s;
  h.peak_bf16_tflops = limits.peak_gflops * 1e-3;
  // Measured on two cores (docs/performance.md). AMX tiles wait for their operands, and few rows do not fill them; expanding FP8
  // holds up both.
  if (isa == Isa::kAmx) {
    h.bandwidth_efficiency = 0.55;
    h.compute_efficiency = 0.14;
  } else if (isa == Isa::kAvx512) {
    h.bandwidth_efficiency = 0.85;
    h.compute_efficiency = 0.75;
  }
  return h;
}

double PlannedStep::total_seconds() const {
  double sum = 0;
  for (const double s : seconds) sum += s;
  return sum;
}

int64_t Plan::users_that_fit() const {
  const uint64_t fixed = input.weight_bytes + scratch_bytes;
  const uint64_t one = cache_bytes / static_cast<uint64_t>(input.settings.users);
  return hardware.memory_bytes > fixed ? static_cast<int64_t>((hardware.memory_bytes - fixed) / one) : 0;
}

PlannedStep plan_step(const ModelConfig& config, const Hardware& hardware, const WorkSettings& work,
                      const StepShape& shape) {
  PlannedStep step{.work = step_work(config, work, shape), .tokens = shape.sequences * shape.count};
  const double bandwidth = hardware.bandwidth_gb_per_s * 1e9 * hardware.bandwidth_efficiency;
  const double peak = hardware.peak_bf16_tflops * 1e12 * hardware.compute_efficiency;
  for (size_t i = 0; i < kWorkPartCount; ++i)
    step.seconds[i] = std::max(step.work.parts[i].bytes() / bandwidth, step.work.parts[i].flops / peak);
  return step;
}

std::optional<double> cost_per_million(const Hardware& hardware, double tokens_per_second) {
  if (hardware.price_per_hour <= 0) return std::nullopt;
  return hardware.price_per_hour / 3600 / tokens_per_second * 1e6;
}

Result<PlanInput> read_plan_input(const std::filesystem::path& model, const PlanSettings& settings) {
  FATHOM_CHECK(settings.users >= 1 && settings.chunk >= 1, "{} users, chunk {}", settings.users, settings.chunk);
  if (!std::filesystem::exists(model))
    return fail("{}: no such file; expected a checkpoint folder or a config.json", model.string());
  const CheckpointSummary summary = summarize(model);
  if (!summary.problems.empty()) return tl::unexpected(summary.problems.error(model.string()));
  PlanInput input{model.string(), *summary.config, summary.loaded_bytes(), settings};
  const int64_t longest = input.config.max_position_embeddings;
  int64_t& context = input.settings.context;
  if (context == 0) context = longest;
  if (context < 1 || context > longest)
    return fail("--context {}: expected 1 to {} (max_position_embeddings of {})", context, longest, model.string());
  return input;
}

Plan make_plan(const PlanInput& input, const Hardware& hardware) {
  const ModelConfig& c = input.config;
  const PlanSettings& s = input.settings;
  Plan plan;
  plan.input = input;
  plan.hardware = hardware;
  const int64_t rows = blocks_for(s.context) * kBlockTokens;
  const int64_t token_bytes = c.total_layers() * kv_layout(c, s.latent_format).token_bytes();
  plan.cache_bytes = static_cast<uint64_t>(rows * token_bytes) * static_cast<uint64_t>(s.users);
  plan.scratch_bytes = scratch_estimate(c, std::max(s.chunk, s.users));
  if (c.sparse()) plan.sparse = plan_positions(c, hardware, s, false);
  plan.dense = plan_positions(c, hardware, s, true);
  return plan;
}

}  // namespace fathom
