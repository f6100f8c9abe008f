// fathom batch: a file of requests, a file of answers.
#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "api/batch_file.h"
#include "api/tool_call_memory.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "engine/block_store.h"
#include "engine/identity.h"

namespace fathom {

namespace {

// Some steps' worth of blocks may wait for the disk.
constexpr int64_t kQueuedBlocks = 64;
// A step that is under way when all is done, or stopped.
constexpr std::chrono::minutes kLastStep{1};

struct BatchOptions {
  EngineOptions engine;
  CacheOptions cache;
  SchedulerSettings scheduler;
  BatchFileSettings file;
  std::string in, out;
};

double share(int64_t part, int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

std::string summary(const BatchFileReport& report, const BatcherStats& s) {
  const int64_t prompt = s.read_tokens + s.cached_tokens;
  std::string text = fmt::format("{} answered, {} refused", report.answered, report.refused);
  if (report.answered_before > 0) text += fmt::format(", {} were there already", report.answered_before);
  text += fmt::format(", of {} requests, in {:.1f} s\n", report.requests, report.seconds);
  text +=
      fmt::format("  prompts   {} tokens, {:.0f} % of them from the cache\n", prompt, share(s.cached_tokens, prompt));
  text += fmt::format("  answers   {} tokens, {:.1f} tokens/s\n", s.answer_tokens,
                      static_cast<double>(s.answer_tokens) / std::max(report.seconds, 1e-9));
  if (s.drafted > 0)
    text +=
        fmt::format("  drafts    {} of {} accepted, {:.0f} %\n", s.accepted, s.drafted, share(s.accepted, s.drafted));
  if (s.preempted > 0) text += fmt::format("  cache     {} times too small: answers were put back\n", s.preempted);
  return text;
}

std::string disk_summary(const BlockStoreStats& s) {
  std::string text = fmt::format("  disk      {} blocks written, {} read, {:.1f} MB kept\n", s.written, s.hits,
                                 1e-6 * static_cast<double>(s.bytes));
  if (s.errors > 0) text += fmt::format("            {} failures, the last: {}\n", s.errors, s.last_error);
  return text;
}

Result<int> run(BatchOptions& options) {
  options.file.in = options.in;
  options.file.out = options.out;
  EngineSettings settings = options.engine.settings();
  settings.cache = options.cache.tokens;
  FATHOM_TRY(const auto engine, Engine::open(options.engine.folder(), settings));
  // Outlives the run, and writes what still waits when it ends.
  std::unique_ptr<BlockStore> store;
  if (!options.cache.folder.empty()) {
    const int64_t block = engine->kv_pool().block_bytes();
    FATHOM_TRY(store, BlockStore::open({options.cache.folder, options.cache.disk_bytes(), kQueuedBlocks * block}));
    FATHOM_TRY(options.scheduler.batcher.identity, cache_identity(*engine));
    options.scheduler.batcher.store = store.get();
  }
  InterruptFlag interrupt({SIGINT, SIGTERM});
  ToolCallMemory calls;
  Scheduler scheduler(*engine, options.scheduler);
  const BatchModel model{*engine, scheduler, (engine->store().folder() / "").parent_path().filename().string(), calls};
  // As many again wait, so that a step is never made for fewer than may be.
  options.file.under_way = 2 * options.scheduler.batcher.max_running;
  std::optional<Progress> progress;
  BatchHooks hooks;
  hooks.on_progress = [&](const BatchFileReport& report) {
    if (!progress) progress.emplace("answering", static_cast<uint64_t>(report.requests), "requests");
    progress->set(static_cast<uint64_t>(report.done()));
  };
  auto result = run_batch_file(model, options.file, hooks, interrupt.flag());
  progress.reset();
  FATHOM_TRY(const BatchFileReport report, std::move(result));
  scheduler.close(kLastStep);
  std::fputs(summary(report, scheduler.stats()).c_str(), stdout);
  if (store) {
    store->flush();
    std::fputs(disk_summary(store->stats()).c_str(), stdout);
  }
  if (report.done() == report.requests) return 0;
  fmt::print(stderr, "fathom: stopped before all was answered; the same command with --resume goes on\n");
  return 130;
}

}  // namespace

void add_batch(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<BatchOptions>();
  CLI::App* command = app.add_subcommand("batch", "Answer a file of requests, many at once");
  command->footer(
      "A line of the file is a request as OpenAI's batches have it:\n"
      "  {\"custom_id\": \"1\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\",\n"
      "   \"body\": {\"messages\": [{\"role\": \"user\", \"content\": \"What is 12 + 30?\"}]}}\n"
      "Each is the answer that it would be alone. Ctrl-C stops; --resume goes on.\n\n"
      "  fathom batch --model DIR --in requests.jsonl --out results.jsonl");
  command->add_option("--in", options->in, "Requests, a line of JSON each")->required()->type_name("FILE");
  command->add_option("--out", options->out, "Answers, a line of JSON each, as they are done")
      ->required()
      ->type_name("FILE");
  command->add_flag("--resume", options->file.resume, "Go on with the file of --out, if there is one");
  command->add_option("--width", options->scheduler.batcher.max_running, "Answers under way at once")
      ->check(CLI::Range(1, 4096))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--draft,!--no-draft", options->scheduler.batcher.draft,
                    "Let the multi-token-prediction layer draft (default: yes); changes speed, never an answer");
  options->cache.add_to(*command, "the context of one");
  options->engine.add_to(*command, /*model_required=*/false);
  command->callback([options, &context] { context.action = [options] { return exit_code(run(*options)); }; });
}

}  // namespace fathom
