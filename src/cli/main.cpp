// fathom: the command line. Each command is a file of this folder.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "cli/command.h"

int main(int argc, char** argv) {
  CLI::App app{"fathom runs DeepSeek-V3.2-Exp and its family (V3, R1, V3.1) from a Hugging Face checkpoint.", "fathom"};
  app.set_version_flag("--version", "fathom " FATHOM_VERSION);
  app.require_subcommand(1);
  app.footer("'fathom COMMAND --help' explains a command. Try: fathom chat");
  fathom::CommandContext context;
  fathom::add_chat(app, context);
  fathom::add_run(app, context);
  fathom::add_tokenize(app, context);
  fathom::add_inspect(app, context);
  fathom::add_synth(app, context);
  fathom::add_trace(app, context);
  fathom::add_serve(app, context);
  fathom::add_keys(app, context);
  fathom::add_usage(app, context);
  fathom::add_batch(app, context);
  fathom::add_bench(app, context);
  fathom::add_plan(app, context);
  fathom::add_eval(app, context);
  fathom::add_coverage(app, context);
  fathom::add_tasks(app, context);
  fathom::add_train(app, context);
  fathom::add_train_tokenizer(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;  // help and version are success; anything else is wrong usage
  }
  try {
    return context.action();
  } catch (const std::exception& e) {
    fmt::print(stderr, "fathom: {}\n", e.what());
    return 1;
  }
}
