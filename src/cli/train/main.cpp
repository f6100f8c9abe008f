// fathom-train: what `fathom train` starts.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <thread>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/train_options.h"
#include "train/trainer.h"

namespace fathom {

namespace {

constexpr int kStopped = 130;  // as a shell reports a program that Ctrl-C ended

Result<int> run(const TrainOptions& options) {
  const int threads =
      options.threads > 0 ? options.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  at::set_num_threads(threads);
  const auto functions = options.ops == "plain" ? train::make_plain_functions()
                                                : train::make_fused_functions(threads, options.ops != "fused-f32");
  const InterruptFlag stop({SIGINT, SIGTERM});
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is reported like a full disk
  train::RunOptions wanted{
      .recipe = options.recipe, .folder = options.out, .resume = options.resume, .from = {}, .stop = &stop.flag()};
  if (!options.from.empty()) wanted.from = options.from;
  FATHOM_TRY(const train::RunEnd end, train::run_training(wanted, *functions));
  return end == train::RunEnd::kFinished ? 0 : kStopped;
}

}  // namespace

}  // namespace fathom

int main(int argc, char** argv) {
  CLI::App app{"Trains a model by a recipe, or fine-tunes one.", "fathom train"};
  fathom::TrainOptions options;
  options.add_to(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    return fathom::exit_code(fathom::run(options));
  } catch (const std::exception& e) {
    fmt::print(stderr, "fathom: {}\n", e.what());
    return 1;
  }
}
