// A trained model in the Hugging Face layout, as the engine and others read it.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "train/parameters.h"
#include "train/recipe.h"

namespace fathom::train {

// Writes config.json, model.safetensors, tokenizer.json, tokenizer_config.json and generation_config.json. Matrices
// that the published checkpoints have in FP8 are E4M3 with a power-of-two scale for each block of 128 × 128 when
// config.fp8, otherwise BF16 like the rest; the router's bias and the indexer's LayerNorm are float32. Parameters that
// the config does not imply (the indexer of a dense twin) are left out. The folder is made under another name and
// renamed when it is complete; an older one is replaced then.
Status export_checkpoint(const std::filesystem::path& folder, const ModelConfig& config, const Parameters& parameters,
                         const Recipe& recipe);

}  // namespace fathom::train
