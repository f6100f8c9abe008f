// The curves of a run as one page.
#pragma once

#include <filesystem>
#include <span>

#include "base/result.h"
#include "train/recipe.h"
#include "train/run_log.h"

namespace fathom::train {

// Self-contained HTML: a table of the stages, and loss, MTP loss, KL, recall, balance, gradient norm, learning rate
// and speed over the tokens of each stage. Long runs are drawn as means of neighbouring steps.
Status write_report(const std::filesystem::path& file, const Recipe& recipe, std::span<const StepRecord> records);

}  // namespace fathom::train
