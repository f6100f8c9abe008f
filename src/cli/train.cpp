// fathom train: hands over to fathom-train, the only program that links libtorch.
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/train_options.h"

namespace fathom {

namespace {

Result<int> hand_over(const TrainOptions& options) {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "fathom-train";
  if (error || !std::filesystem::exists(program))
    return fail(
        "train: {} is not there: this fathom was built without the trainer. './fathom train' builds it; by hand, "
        "install libtorch-dev and libopenblas-dev, configure with -DFATHOM_TRAIN=ON and build",
        program.string());
  std::vector<std::string> arguments = options.arguments();
  arguments.insert(arguments.begin(), program.string());
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  // libtorch's threads would otherwise spin after each of its operations and keep the cores from the pool of the fused
  // ones, which does most of the work. Read when the program is loaded, so it cannot be set later.
  setenv("OMP_WAIT_POLICY", "PASSIVE", 0);
  execv(program.c_str(), argv.data());
  return fail("train: cannot start {}: {}", program.string(), std::strerror(errno));
}

}  // namespace

void add_train(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "Train a model by a recipe, or fine-tune one");
  options->add_to(*command);
  command->callback([options, &context] { context.action = [options] { return exit_code(hand_over(*options)); }; });
}

}  // namespace fathom
