// What a run keeps on disk: parameters, and for the stage under way the optimizer's moments.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.h"
#include "train/optimizer.h"
#include "train/parameters.h"

namespace fathom::train {

// `step` steps of the stage are done.
struct RunPosition {
  std::string stage;
  int64_t step = 0;
};

// One safetensors file, float32: NAME for a parameter, NAME.m and NAME.v for its moments. It is complete or not there:
// an older file of that name stays until the new one is on disk.
Status save_state(const std::filesystem::path& file, const RunPosition& position, const Parameters& parameters,
                  AdamW& optimizer);
// Into parameters and moments of the same sizes; all that does not fit is reported at once, and then nothing is
// changed.
Result<RunPosition> load_state(const std::filesystem::path& file, Parameters& parameters, AdamW& optimizer);

// Parameters alone: where a stage starts.
Status save_parameters(const std::filesystem::path& file, const Parameters& parameters);
Status load_parameters(const std::filesystem::path& file, Parameters& parameters);

}  // namespace fathom::train
