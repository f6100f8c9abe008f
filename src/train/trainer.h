// A training run: the stages of a recipe one after the other, in a folder that it can be resumed from.
//   DIR/recipe.json, tokenizer.json,
//       data.json                     what the run is made of
//   DIR/start.safetensors             the weights it began with
//   DIR/state.safetensors             the stage under way: weights, moments, step
//   DIR/stages/NAME.safetensors       the weights at the end of a stage
//   DIR/export/NAME/                  that stage as a checkpoint in the Hugging Face layout, where the recipe says so
//   DIR/log.jsonl, report.html        what was measured
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/result.h"
#include "train/functions.h"
#include "train/recipe.h"

namespace fathom::train {

struct RunOptions {
  std::filesystem::path recipe;
  std::filesystem::path folder;
  bool resume = false;
  std::optional<std::filesystem::path> from;  // a checkpoint to begin with, in place of random weights
  const std::atomic<bool>* stop = nullptr;    // becomes true: save after the step under way, and return
};

enum class RunEnd { kFinished, kStopped };

// Runs to the end of the recipe or until it is stopped. A run that ended anywhere, by whatever, goes on with `resume`
// to the same bits as if it had not (with the same number of threads, where a library's sums depend on it).
// Errors: a recipe that is broken, or another than the folder's, as data and tokenizer; a folder in use without `resume`; missing files; a
// full disk; a loss or gradient that is not finite, which is never applied. Whatever was saved before stays.
Result<RunEnd> run_training(const RunOptions& options, Functions& functions);

}  // namespace fathom::train
