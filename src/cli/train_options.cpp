#include "cli/train_options.h"

#include "cli/options.h"

namespace fathom {

void TrainOptions::add_to(CLI::App& command) {
  command.add_option("--recipe", recipe, "What to train, on what, in which stages (docs/training.md)")
      ->required()
      ->type_name("FILE");
  command.add_option("--out", out, "Folder of the run: state, log, report, exported models")
      ->required()
      ->type_name("DIR");
  CLI::Option* resuming = command.add_flag("--resume", resume, "Go on with the run in that folder");
  command.add_option("--from", from, "Begin with the weights of this checkpoint instead of random ones: fine-tuning")
      ->type_name("DIR")
      ->excludes(resuming);
  add_threads(command, threads);
  command
      .add_option(
          "--ops", ops,
          "fused: kernels of our own, products of BF16 with float32 sums; fused-f32: the same in float32 throughout;\n"
          "plain: libtorch's operations, float32")
      ->check(CLI::IsMember({"fused", "fused-f32", "plain"}))
      ->type_name("NAME")
      ->capture_default_str();
  command.footer(
      "Ctrl-C or SIGTERM saves and ends; killed in any other way, at most save_minutes of work are lost. A run that "
      "is\n"
      "resumed ends with the same bits as one that was not. Exit code 130: stopped before the end.\n\n"
      "  fathom train --recipe models/recipes/nano.json --out runs/nano\n"
      "  fathom train --recipe models/recipes/nano.json --out runs/nano --resume");
}

std::vector<std::string> TrainOptions::arguments() const {
  std::vector<std::string> list = {"--recipe", recipe, "--out", out, "--threads", std::to_string(threads),
                                   "--ops",    ops};
  if (resume) list.push_back("--resume");
  if (!from.empty()) list.insert(list.end(), {"--from", from});
  return list;
}

}  // namespace fathom
