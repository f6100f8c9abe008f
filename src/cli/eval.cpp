// fathom eval: how often a model is right, on questions that no model was trained on.
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
#include "eval/compare.h"
#include "eval/report.h"
#include "eval/run.h"
#include "eval/settings.h"

namespace fathom {

namespace {

struct EvalCommandOptions {
  EngineOptions engine;
  EvalOptions run;
  std::string suite = "quick", attention = "sparse", thinking = "both", json, html;
  std::vector<std::string> compare;
  // Instead of the suite's.
  std::vector<std::string> tasks;
  std::vector<int64_t> lengths;
  std::vector<double> depths;
  std::optional<int64_t> questions, max_tokens;
  std::optional<double> top_p;
  double temperature = 0;
  int64_t samples = 1;
  uint64_t seed = 1;
};

Result<EvalSettings> settings_of(const EvalCommandOptions& options) {
  FATHOM_TRY(EvalSettings s, suite_settings(options.suite));
  if (!options.tasks.empty()) s.tasks = options.tasks;
  if (!options.lengths.empty()) s.lengths = options.lengths;
  if (!options.depths.empty()) s.depths = options.depths;
  s.questions = options.questions.value_or(s.questions);
  s.max_tokens = options.max_tokens.value_or(s.max_tokens);
  s.direct = options.thinking != "on";
  s.thinking = options.thinking != "off";
  s.samples = options.samples;
  s.seed = options.seed;
  s.temperature = options.temperature;
  if (!asks_lookups(s)) s.lengths.clear(), s.depths.clear();
  return s;
}

// A suite's lengths that the context has no room for are left out, and that is said; those that were asked for are not.
Status fit_lengths(const EvalCommandOptions& options, EvalSettings& settings, int64_t context) {
  std::vector<int64_t> fitting;
  std::string too_long;
  for (const int64_t length : settings.lengths) {
    if (lookup_tokens(settings, length) <= context)
      fitting.push_back(length);
    else
      too_long += fmt::format("{}{}", too_long.empty() ? "" : ", ", length);
  }
  if (too_long.empty()) return {};
  if (!options.lengths.empty() || fitting.empty())
    return fail(
        "look-ups of {} tokens, with up to {} for the answer: the context has {}; ask for shorter ones (--lengths)",
        too_long, settings.max_tokens, context);
  settings.lengths = std::move(fitting);
  fmt::print(stderr, "fathom: left out, as the context has {} tokens: look-ups of {} tokens\n", context, too_long);
  return {};
}

// Found out before hours of answering, not after. An older file of that name stays as it is.
Status check_writable(const std::string& file) {
  if (file.empty()) return {};
  FATHOM_TRY([[maybe_unused]] const AtomicFile dropped, AtomicFile::create(file));
  return {};
}

Result<int> evaluate(const EvalCommandOptions& options) {
  for (const std::string& file : {options.json, options.html}) FATHOM_RETURN_IF_ERROR(check_writable(file));
  FATHOM_TRY(EvalSettings settings, settings_of(options));
  EngineSettings engine_settings = options.engine.settings();
  engine_settings.dense_attention = options.attention == "dense";
  constexpr int64_t kPrompt = 1000;  // of what is no look-up: tools included, seldom more
  int64_t longest = kPrompt + settings.max_tokens;
  for (const int64_t length : settings.lengths) longest = std::max(longest, lookup_tokens(settings, length));
  engine_settings.cache = options.run.width * longest;
  FATHOM_TRY(const auto engine, Engine::open(options.engine.folder(), engine_settings));
  FATHOM_RETURN_IF_ERROR(fit_lengths(options, settings, engine->context()));
  settings.top_p = options.top_p.value_or(settings.temperature > 0 ? engine->default_sampling().top_p : 1.0);

  InterruptFlag interrupt;
  std::optional<Progress> progress;
  const auto on_progress = [&](int64_t done, int64_t total) {
    if (!progress) progress.emplace("answering", static_cast<uint64_t>(total), "answers");
    progress->set(static_cast<uint64_t>(done));
  };
  auto result = run_eval(*engine, settings, options.run, on_progress, interrupt.flag());
  progress.reset();
  FATHOM_TRY(const EvalReport report, std::move(result));
  std::fputs(report_text(report).c_str(), stdout);
  if (static_cast<int64_t>(report.answers.size()) < report.planned) {
    fmt::print(
        stderr, "fathom: stopped before all was answered; {}\n",
        options.run.save.empty() ? "with --save FILE it could be continued" : "the same command with --resume goes on");
    return 130;
  }
  if (!options.json.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.json, report_json(report)));
  if (!options.html.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.html, report_html(report)));
  return 0;
}

Result<int> compare(const EvalCommandOptions& options) {
  FATHOM_TRY(const EvalReport a, load_eval_report(options.compare[0]));
  FATHOM_TRY(const EvalReport b, load_eval_report(options.compare[1]));
  FATHOM_TRY(const Comparison comparison, compare_reports(a, b));
  std::fputs(comparison_text(comparison).c_str(), stdout);
  if (!options.json.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.json, comparison_json(comparison)));
  if (!options.html.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.html, comparison_html(comparison)));
  return 0;
}

std::string footer() {
  std::string text =
      "Held-out questions of 'fathom tasks', asked as 'fathom chat' asks them, graded exactly (docs/evaluation.md).\n\n"
      "Suites:\n";
  for (const Suite& suite : suite_list()) text += fmt::format("  {:<9} {}\n", suite.name, suite.description);
  return text +
         "\n  fathom eval --model DIR --suite full --save answers.jsonl --json sparse.json --html sparse.html\n"
         "  fathom eval --model DIR --suite full --attention dense --json dense.json\n"
         "  fathom eval --compare dense.json sparse.json";
}

}  // namespace

void add_eval(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<EvalCommandOptions>();
  EvalCommandOptions& o = *options;
  CLI::App* command = app.add_subcommand("eval", "Test a model on held-out questions, or compare two tests");
  command->footer(footer());
  const auto add = [&](const char* name, auto& value, const char* type, const char* description) {
    return command->add_option(name, value, description)->type_name(type);
  };
  add("--suite", o.suite, "NAME", "What to ask; the options below change it")->capture_default_str();
  add("--tasks", o.tasks, "NAME,…", "Only these")->delimiter(',');
  add("--questions", o.questions, "N", "Of each task; of each length, for look-ups");
  add("--lengths", o.lengths, "N,…", "Of look-ups, in tokens")->delimiter(',');
  add("--depths", o.depths, "X,…", "Of look-ups: where the fact stands, 0 to 1; questions take turns")->delimiter(',');
  add("--thinking", o.thinking, "on|off|both", "Let the model reason before it answers")
      ->check(CLI::IsMember({"on", "off", "both"}))
      ->capture_default_str();
  add("--attention", o.attention, "NAME",
      "sparse: as the model is; dense: without its indexer, every key is attended to")
      ->check(CLI::IsMember({"sparse", "dense"}))
      ->capture_default_str();
  add("--seed", o.seed, "N", "Of the questions; with --temperature, of the answers too")->capture_default_str();
  add("--max-tokens", o.max_tokens, "N", "Longest answer, reasoning included");
  add("--temperature", o.temperature, "X", "0: always the most likely token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  add("--top-p", o.top_p, "X", "With --temperature; default: the checkpoint's")->check(CLI::Range(0.0, 1.0));
  add("--samples", o.samples, "N", "Answers to each question and mode, with --temperature")->capture_default_str();
  add("--batch", o.run.width, "N", "Answers side by side: changes speed and memory, never an answer")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->capture_default_str();
  CLI::Option* save = add("--save", o.run.save, "FILE.jsonl", "Write every answer, with its words, as it comes");
  command->add_flag("--resume", o.run.resume, "Go on with the file of --save, if there is one")->needs(save);
  add("--json", o.json, "FILE", "Also write everything to this file");
  add("--html", o.html, "FILE", "Also write a page to this file");
  CLI::Option* compare_option = add("--compare", o.compare, "A.json B.json",
                                    "Compare two files that --json wrote: B over A; goes with --json and --html alone")
                                    ->expected(2);
  o.engine.add_to(*command, /*model_required=*/false);
  command->callback([options, &context, command, compare_option] {
    // Not by CLI11's `excludes`, which would say so in the help of every option.
    if (!options->compare.empty())
      for (const CLI::Option* option : command->get_options())
        if (const std::string name = option->get_name(); option->count() > 0 && option != compare_option)
          if (name != "--json" && name != "--html") throw CLI::ExcludesError("--compare", name);
    context.action = [options] { return exit_code(options->compare.empty() ? evaluate(*options) : compare(*options)); };
  });
}

}  // namespace fathom
