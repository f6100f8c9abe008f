// fathom coverage: how much of dense attention the indexer's selection holds.
#include "eval/coverage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "engine/lens.h"

namespace fathom {

namespace {

struct CoverageOptions {
  EngineOptions engine;
  std::vector<int64_t> lengths = {4000};
  int64_t texts = 8, queries = kMostLensQueries;
  uint64_t seed = 1;
  std::string file, json;
};

Result<std::vector<CoverageText>> find_texts(const CoverageOptions& options, const Engine& engine) {
  if (!options.file.empty()) {
    FATHOM_TRY(const std::string text, read_file(options.file));
    FATHOM_TRY(std::vector<int32_t> tokens, engine.tokenizer().encode(text));
    tokens.insert(tokens.begin(), static_cast<int32_t>(engine.config().bos_token_id));
    const auto length = static_cast<int64_t>(tokens.size());
    return std::vector<CoverageText>{{length, std::move(tokens)}};
  }
  FATHOM_TRY(EvalSettings settings, suite_settings("look-up"));
  settings.tasks = {"lookup"};
  settings.lengths = options.lengths;
  settings.questions = options.texts;
  settings.seed = options.seed;
  return coverage_texts(engine, settings);
}

Result<int> coverage(const CoverageOptions& options) {
  FATHOM_TRY(const auto engine, options.engine.open());
  FATHOM_TRY(const std::vector<CoverageText> texts, find_texts(options, *engine));
  InterruptFlag interrupt;
  std::optional<Progress> progress;
  auto result = measure_coverage(
      *engine, texts, options.queries,
      [&](int64_t done) {
        if (!progress) progress.emplace("looking", texts.size(), "texts");
        progress->set(static_cast<uint64_t>(done));
      },
      interrupt.flag());
  progress.reset();
  FATHOM_TRY(const CoverageReport report, std::move(result));
  std::fputs(coverage_text(report).c_str(), stdout);
  if (report.texts < static_cast<int64_t>(texts.size())) {
    fmt::print(stderr, "fathom: stopped after {} of {} texts\n", report.texts, texts.size());
    return 130;
  }
  if (!options.json.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.json, coverage_json(report)));
  return 0;
}

}  // namespace

void add_coverage(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<CoverageOptions>();
  CoverageOptions& o = *options;
  CLI::App* command = app.add_subcommand("coverage", "Measure how much of dense attention the selected keys hold");
  command->footer(
      "Texts are held-out look-ups (docs/evaluation.md), or a file of your own. What of it single queries select, the "
      "lens\n"
      "of the web interface shows.\n\n"
      "  fathom coverage --model DIR --lengths 1000,4000,16000\n"
      "  fathom coverage --model DIR -f book.txt --json coverage.json");
  CLI::Option* lengths = command->add_option("--lengths", o.lengths, "Of the texts, in tokens")
                             ->delimiter(',')
                             ->type_name("N,…")
                             ->capture_default_str();
  CLI::Option* texts = command->add_option("--texts", o.texts, "Of each length")
                           ->type_name("N")
                           ->check(CLI::Range(int64_t{1}, int64_t{10000}))
                           ->capture_default_str();
  CLI::Option* seed = command->add_option("--seed", o.seed, "Of the texts")->type_name("N")->capture_default_str();
  command->add_option("--queries", o.queries, "Rows looked at in each text, evenly apart")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kMostLensQueries))
      ->capture_default_str();
  command->add_option("-f,--file", o.file, "A text to read instead")
      ->type_name("FILE")
      ->excludes(lengths)
      ->excludes(texts)
      ->excludes(seed);
  command->add_option("--json", o.json, "Also write the figures to this file")->type_name("FILE");
  o.engine.add_to(*command, /*model_required=*/false);
  command->callback([options, &context] { context.action = [options] { return exit_code(coverage(*options)); }; });
}

}  // namespace fathom
