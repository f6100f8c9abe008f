// A command registers itself as a subcommand; when its options are parsed it leaves what is to be run in the context.
// The action returns the exit code: 0, or 1 after it has said on stderr what failed. Wrong usage is CLI11's business.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>

#include "base/result.h"

namespace fathom {

struct CommandContext {
  std::function<int()> action;
};

void add_chat(CLI::App& app, CommandContext& context);
void add_run(CLI::App& app, CommandContext& context);
void add_tokenize(CLI::App& app, CommandContext& context);
void add_inspect(CLI::App& app, CommandContext& context);
void add_synth(CLI::App& app, CommandContext& context);
void add_trace(CLI::App& app, CommandContext& context);
void add_serve(CLI::App& app, CommandContext& context);
void add_keys(CLI::App& app, CommandContext& context);
void add_usage(CLI::App& app, CommandContext& context);
void add_batch(CLI::App& app, CommandContext& context);
void add_bench(CLI::App& app, CommandContext& context);
CLI::App* add_bench_serve(CLI::App& bench, CommandContext& context);
void add_plan(CLI::App& app, CommandContext& context);
void add_eval(CLI::App& app, CommandContext& context);
void add_coverage(CLI::App& app, CommandContext& context);
void add_tasks(CLI::App& app, CommandContext& context);
void add_train(CLI::App& app, CommandContext& context);
void add_train_tokenizer(CLI::App& app, CommandContext& context);

// The action's exit code, or the error on stderr and 1.
inline int exit_code(const Result<int>& result) {
  if (result) return *result;
  fmt::print(stderr, "fathom: {}\n", result.error().message);
  return 1;
}

}  // namespace fathom
