// fathom train-tokenizer: a byte-level BPE from texts, or from what models are trained on.
#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/progress.h"
#include "cli/command.h"
#include "tasks/mix.h"
#include "text/bpe_trainer.h"

namespace fathom {

namespace {

struct TrainTokenizerOptions {
  std::string out;
  std::vector<std::string> texts;
  int64_t tasks = 0, context = 32768;
  uint64_t seed = 1;
  BpeTrainerOptions trainer;
};

Status add_texts(const TrainTokenizerOptions& options, BpeTrainer& trainer) {
  for (const std::string& file : options.texts) {
    FATHOM_TRY(const std::string text, read_file(file, size_t{2'000'000'000}));
    const Status added = trainer.add(text);
    if (!added) return fail("{}: {}", file, added.error().message);
  }
  return {};
}

Status add_tasks_of(const TrainTokenizerOptions& options, BpeTrainer& trainer) {
  if (options.tasks == 0) return {};
  FATHOM_TRY(const TaskMix mix, TaskMix::create({.seed = options.seed}));
  const auto count = static_cast<uint64_t>(options.tasks);
  Progress progress("Reading examples", count, "examples");
  for (uint64_t i = 0; i < count; ++i) {
    FATHOM_TRY(const Example example, mix.example(i));
    FATHOM_RETURN_IF_ERROR(trainer.add(example.prompt));
    FATHOM_RETURN_IF_ERROR(trainer.add(example.completion));
    progress.add(1);
  }
  return {};
}

Result<int> train_tokenizer(const TrainTokenizerOptions& options) {
  if (options.texts.empty() && options.tasks == 0) {
    return fail("train-tokenizer: no text to learn from: give --text FILE, --tasks COUNT, or both");
  }
  const auto start = std::chrono::steady_clock::now();
  FATHOM_TRY(BpeTrainer trainer, BpeTrainer::create(options.trainer));
  FATHOM_RETURN_IF_ERROR(add_texts(options, trainer));
  FATHOM_RETURN_IF_ERROR(add_tasks_of(options, trainer));
  const TrainedBpe trained = trainer.train();
  FATHOM_RETURN_IF_ERROR(write_tokenizer(options.out, trained, options.context));
  const double seconds = seconds_since(start);
  fmt::print("{}: {} tokens, {} of them merges, from {:.1f} MB of text in {:.1f} s\n", options.out,
             trained.vocab_size(), trained.merges.size(), static_cast<double>(trainer.bytes()) / 1e6, seconds);
  if (trained.vocab_size() < options.trainer.vocab_size) {
    fmt::print(stderr, "fathom: {} tokens were asked for; no more pairs stand at least {} times in these texts\n",
               options.trainer.vocab_size, options.trainer.min_count);
  }
  return 0;
}

}  // namespace

void add_train_tokenizer(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<TrainTokenizerOptions>();
  CLI::App* command = app.add_subcommand("train-tokenizer", "Learn a tokenizer from texts or from the synthetic tasks");
  command->footer(
      "Writes tokenizer.json and tokenizer_config.json: byte-level BPE with the pre-tokenizer and the special tokens "
      "of\n"
      "DeepSeek-V3.2-Exp. The same texts give the same tokenizer.\n\n"
      "  fathom train-tokenizer --out DIR --vocab 2048 --tasks 50000 --single-digits");
  command->add_option("--out", options->out, "Folder to write to")->type_name("DIR")->required();
  command->add_option("--vocab", options->trainer.vocab_size, "All tokens: 256 bytes, merges, special tokens")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--text", options->texts, "A file of text; may be given several times")->type_name("FILE");
  command->add_option("--tasks", options->tasks, "Examples of the synthetic tasks to learn from (fathom tasks --mix)")
      ->check(CLI::NonNegativeNumber)
      ->type_name("COUNT");
  command->add_option("--seed", options->seed, "Of these examples")->type_name("N")->capture_default_str();
  command->add_flag("--single-digits", options->trainer.single_digits, "Each digit is a token of its own");
  command->add_option("--min-count", options->trainer.min_count, "Merge only pairs that stand so often")
      ->check(CLI::PositiveNumber)
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--context", options->context, "model_max_length of tokenizer_config.json")
      ->check(CLI::PositiveNumber)
      ->type_name("N")
      ->capture_default_str();
  command->callback(
      [options, &context] { context.action = [options] { return exit_code(train_tokenizer(*options)); }; });
}

}  // namespace fathom
