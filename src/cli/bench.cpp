// fathom bench: how fast a model runs here, and how fast it could.
#include "engine/bench.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "checkpoint/weight_store.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "engine/bench_kernels.h"
#include "engine/bench_serving.h"

namespace fathom {

namespace fs = std::filesystem;

namespace {

struct BenchOptions {
  std::string model, attention = "sparse", fill = "computed", numerics = "w8a16", kv = "bf16", json, html;
  std::vector<std::string> compare;
  BenchSettings settings;
};

Status write_reports(const BenchOptions& options, std::span<const BenchReport> reports) {
  if (!options.json.empty())
    for (const BenchReport& r : reports) {
      // Of two, each its own file, which --compare takes.
      const fs::path file = options.json, extension = file.extension();
      const fs::path own = fs::path(file).replace_extension(r.attention) += extension;
      FATHOM_RETURN_IF_ERROR(write_file_atomically(reports.size() == 1 ? file : own, report_json(r)));
    }
  if (!options.html.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.html, report_html(reports)));
  return {};
}

Result<int> measure(const BenchOptions& options) {
  BenchSettings settings = options.settings;
  FATHOM_TRY(settings.runner.isa, choose_isa());
  if (options.attention == "reference") settings.runner.isa = Isa::kReference;
  settings.runner.dense_attention = options.attention == "dense";
  settings.beside_dense = options.attention == "both";
  settings.noise_in_cache = options.fill == "noise";
  settings.runner.numerics = numerics_from(options.numerics);
  settings.latent_format = latent_format_from(options.kv);
  FATHOM_TRY(const auto store, WeightStore::open(options.model));

  // One progress line a part of the work: a new name ends the line before.
  std::optional<Progress> progress;
  std::string shown;
  const auto on_progress = [&](std::string_view what, int64_t done, int64_t total) {
    if (what != shown) {
      shown = what;
      progress.emplace(shown, static_cast<uint64_t>(total), "tokens");
    }
    progress->set(static_cast<uint64_t>(done));
  };
  InterruptFlag interrupt;
  FATHOM_TRY(const std::vector<BenchReport> reports, run_bench(*store, settings, on_progress, interrupt.flag()));
  progress.reset();
  for (const BenchReport& r : reports) std::fputs((report_text(r) + (reports.size() > 1 ? "\n" : "")).c_str(), stdout);
  if (reports.size() > 1) std::fputs(comparison_text(reports[1], reports[0]).c_str(), stdout);
  FATHOM_RETURN_IF_ERROR(write_reports(options, reports));
  return 0;
}

Result<int> compare(const BenchOptions& options) {
  if (!options.json.empty())
    return fail("--json: of a comparison there is none; --html FILE writes a page of both runs");
  std::vector<BenchReport> reports;
  for (const std::string& file : options.compare) {
    FATHOM_TRY(BenchReport report, load_report(file));
    reports.push_back(std::move(report));
  }
  std::fputs(comparison_text(reports[0], reports[1]).c_str(), stdout);
  if (!options.html.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.html, report_html(reports)));
  return 0;
}

struct KernelOptions {
  KernelBenchSettings settings;
  std::string json;
};

Result<int> measure_kernels(const KernelOptions& options) {
  KernelBenchSettings settings = options.settings;
  FATHOM_TRY(settings.isa, choose_isa());
  InterruptFlag interrupt;
  std::optional<KernelReport> report;
  {
    // How many there are is not known beforehand: the line says which.
    const bool terminal = isatty(STDERR_FILENO) != 0;
    const auto show = [&](std::string_view name) {
      if (terminal) fmt::print(stderr, "\r{}\033[K", name);
    };
    auto result = bench_kernels(settings, show, interrupt.flag());
    if (terminal) fmt::print(stderr, "\r\033[K");
    FATHOM_TRY(report, std::move(result));
  }
  std::fputs(kernels_text(*report).c_str(), stdout);
  if (!options.json.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.json, kernels_json(*report)));
  return 0;
}

CLI::App* add_kernels(CLI::App& bench, CommandContext& context) {
  auto options = std::make_shared<KernelOptions>();
  CLI::App* command = bench.add_subcommand("kernels", "Each operation alone, at the dimensions of V3.2-Exp");
  command->footer(
      "Weights and caches are synthetic; all of it takes up to 4 GB of memory and some minutes.\n\n"
      "  fathom bench kernels --filter 'attend|index_select'");
  command->add_option("--filter", options->settings.filter, "Only operations whose name this regular expression finds")
      ->type_name("REGEX");
  add_threads(*command, options->settings.threads);
  command->add_option("--repeat", options->settings.repeat, "Repetitions of each measurement; the median counts")
      ->check(CLI::Range(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--json", options->json, "Also write the figures to this file")->type_name("FILE");
  command->callback(
      [options, &context] { context.action = [options] { return exit_code(measure_kernels(*options)); }; });
  return command;
}

struct ServingOptions {
  EngineOptions engine;
  ServingBenchSettings settings;
  std::string cache_dir, json;
};

Result<int> measure_serving(ServingOptions& options) {
  options.settings.cache_dir = options.cache_dir;
  InterruptFlag interrupt;
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto show = [&](std::string_view part) {
    if (terminal) fmt::print(stderr, "\r{}\033[K", part);
  };
  auto result =
      bench_serving(options.engine.folder(), options.engine.settings(), options.settings, show, interrupt.flag());
  if (terminal) fmt::print(stderr, "\r\033[K");
  FATHOM_TRY(const ServingReport report, std::move(result));
  std::fputs(serving_text(report, options.settings).c_str(), stdout);
  if (!options.json.empty())
    FATHOM_RETURN_IF_ERROR(write_file_atomically(options.json, serving_json(report, options.settings)));
  return 0;
}

CLI::App* add_serving(CLI::App& bench, CommandContext& context) {
  auto options = std::make_shared<ServingOptions>();
  ServingBenchSettings& s = options->settings;
  CLI::App* command = bench.add_subcommand("serving", "Many answers at once: throughput, even flow, the context cache");
  command->footer("  fathom bench serving --model DIR --streams 1,16 --cache-dir BLOCKS");
  const auto count = [&](const char* name, int64_t& value, int64_t least, const char* description) {
    command->add_option(name, value, description)
        ->check(CLI::Range(least, int64_t{1} << 20))
        ->type_name("N")
        ->capture_default_str();
  };
  command->add_option("--streams", s.streams, "Answers at once, with commas between")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->type_name("N,…")
      ->capture_default_str();
  count("--prompt", s.prompt, 1, "Tokens of each stream's prompt");
  count("--gen", s.generate, 2, "Tokens of each stream's answer");
  count("--gap-streams", s.gap_streams, 0, "Streams beside which a long prompt is read; 0: leave that out");
  count("--long-prompt", s.long_prompt, 1, "Its tokens");
  count("--prefix", s.prefix, 0, "Tokens of a prompt that is in the cache; 0: leave that out");
  command->add_option("--cache-dir", options->cache_dir, "Also from disk: an empty folder for the blocks")
      ->type_name("DIR");
  command->add_flag("--draft,!--no-draft", s.draft, "Also with drafts, where the model has the layer (default: yes)");
  command->add_option("--json", options->json, "Also write the figures to this file")->type_name("FILE");
  options->engine.add_to(*command, /*model_required=*/true);
  command->callback(
      [options, &context] { context.action = [options] { return exit_code(measure_serving(*options)); }; });
  return command;
}

}  // namespace

void add_bench(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<BenchOptions>();
  BenchSettings& s = options->settings;
  CLI::App* command = app.add_subcommand("bench", "Measure prefill and decode, beside what the machine can do");
  command->footer(
      "At each depth the cache holds that many tokens already. Tokens are noise, and are not sampled; no tokenizer is\n"
      "needed. Compare figures of one run, or of runs whose limits agree: machines are shared.\n\n"
      "  fathom bench --model DIR --depth 0,4096,16384 --json before.json\n"
      "  fathom bench --compare before.json after.json --html page.html\n"
      "  fathom bench --model DIR --depth 0,4096,16384 --attention both --html page.html\n"
      "  fathom bench kernels --filter attend\n"
      "  fathom bench serving --model DIR\n"
      "  fathom bench serve --url http://127.0.0.1:8000");
  auto* what = command->add_option_group("What to do");
  what->add_option("--model", options->model, "Measure this checkpoint folder")->type_name("DIR");
  what->add_option("--compare", options->compare, "Compare two files that --json wrote: the second over the first")
      ->expected(2)
      ->type_name("A.json B.json");
  command->add_option("--depth", s.depths, "Tokens in the cache before, with commas between")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->type_name("N,…")
      ->capture_default_str();
  const auto count = [&](const char* name, int64_t& value, int64_t least, const char* description) {
    command->add_option(name, value, description)
        ->check(CLI::Range(least, int64_t{1} << 20))
        ->type_name("N")
        ->capture_default_str();
  };
  count("--prompt", s.prompt, 0, "Tokens to prefill at each depth; 0: leave prefill out");
  count("--gen", s.generate, 0, "Tokens to decode at each depth; 0: leave decode out");
  count("--batch", s.batch, 1, "Sequences that decode side by side");
  count("--chunk", s.chunk, 1, "Prompt tokens a step");
  command->add_option("--repeat", s.repeat, "Repetitions of each measurement; the median counts")
      ->check(CLI::Range(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--attention", options->attention,
                   "sparse: as the model is; dense: without its indexer, every key is attended to; both: in turn,\n"
                   "repetition by repetition; reference: the scalar definition of everything, very slow")
      ->check(CLI::IsMember({"sparse", "dense", "both", "reference"}))
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option(
          "--fill", options->fill,
          "What the cache holds before: computed: rows of a prefill; noise: at once, for depths whose prefill\n"
          "would take hours. Both cost the same to read and to score")
      ->check(CLI::IsMember({"computed", "noise"}))
      ->type_name("NAME")
      ->capture_default_str();
  add_numerics(*command, options->numerics);
  add_kv(*command, options->kv);
  add_threads(*command, s.threads);
  command
      ->add_option(
          "--json", options->json,
          "Also write everything to this file; of both, to FILE with the name of the attention before its ending")
      ->type_name("FILE");
  command->add_option("--html", options->html, "Also write a page with curves to this file")->type_name("FILE");
  CLI::App* kernels = add_kernels(*command, context);
  CLI::App* serving = add_serving(*command, context);
  CLI::App* serve = add_bench_serve(*command, context);
  command->callback([options, kernels, serving, serve, &context] {
    if (kernels->parsed() || serving->parsed() || serve->parsed()) return;
    if (options->model.empty() == options->compare.empty())
      throw CLI::RequiredError(
          "Exactly one of --model, --compare, or one of the words 'kernels', 'serving' and 'serve'");
    context.action = [options] { return exit_code(options->compare.empty() ? measure(*options) : compare(*options)); };
  });
}

}  // namespace fathom
