// fathom plan: what a model would need and do on a machine.
#include "engine/plan.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "base/cpu_features.h"
#include "base/thread_pool.h"
#include "cli/command.h"
#include "cli/options.h"

namespace fathom {

namespace {

struct PlanOptions {
  std::string model, hardware, kv = "bf16";
  PlanSettings settings;
  double price = 0;
  bool json = false;
};

Result<Hardware> find_hardware(const PlanOptions& options) {
  if (!options.hardware.empty()) return load_hardware(options.hardware);
  FATHOM_TRY(const Isa isa, choose_isa());
  ThreadPool threads;
  return probe_hardware(threads, isa);
}

Result<int> plan(const PlanOptions& options) {
  PlanSettings settings = options.settings;
  settings.latent_format = latent_format_from(options.kv);
  FATHOM_TRY(const PlanInput input, read_plan_input(options.model, settings));
  FATHOM_TRY(Hardware hardware, find_hardware(options));
  if (options.price > 0) hardware.price_per_hour = options.price;
  const Plan result = make_plan(input, hardware);
  std::fputs((options.json ? plan_json(result) : plan_text(result)).c_str(), stdout);
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<PlanOptions>();
  PlanSettings& s = options->settings;
  CLI::App* command = app.add_subcommand("plan", "Predict memory, speed and cost of a model on a machine");
  command->footer(
      "Without --hardware, this machine's limits are probed for a second or two. A hardware file is a JSON object:\n\n"
      "  {\"name\": \"8 × H800\", \"memory_bytes\": 640e9, \"bandwidth_gb_per_s\": 26800, \"peak_bf16_tflops\": 7900,\n"
      "   \"price_per_hour\": 16, \"bandwidth_efficiency\": 0.7, \"compute_efficiency\": 0.5}\n\n"
      "The two efficiencies may be left out. price_per_hour: in any currency; 0: no costs.\n\n"
      "  fathom plan --model DIR --context 32768 --users 4\n"
      "  fathom plan --model config.json --hardware server.json --json | jq .memory");
  command->add_option("--model", options->model, "Checkpoint folder, or a config.json: no weights are needed")
      ->required()
      ->type_name("PATH");
  command->add_option("--context", s.context, "Tokens of each user; 0: as many as the model was made for")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--users", s.users, "Users who decode side by side")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--hardware", options->hardware, "A file that describes the machine; default: this machine")
      ->type_name("FILE");
  command->add_option("--price", options->price, "Of an hour of the machine, instead of the file's")
      ->check(CLI::Range(0.0, 1e9))
      ->type_name("X");
  add_kv(*command, options->kv);
  command->add_option("--chunk", s.chunk, "Prompt tokens a step")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print one JSON object");
  command->callback([options, &context] { context.action = [options] { return exit_code(plan(*options)); }; });
}

}  // namespace fathom
