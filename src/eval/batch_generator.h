// Many answers to questions that are asked for as they are needed.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "engine/batcher.h"

namespace fathom {

struct BatchItem {
  GenerationRequest generation;
  // As GenerationCallbacks::on_text.
  std::function<void(std::string_view)> on_text = [](std::string_view) {};
  // The answer is complete, and all its text was given out. An error ends the whole run.
  std::function<Status(const GenerationResult&)> on_done = [](const GenerationResult&) { return Status(); };
};

struct BatchCounts {
  int64_t answers = 0, prompt_tokens = 0, answer_tokens = 0;
  double seconds = 0;
};

// Answers what `next` gives out until it gives nothing more, at most `width` at a time (engine/batcher.h). Each answer has
// the bits that it has alone. Stops, without the answers under way, when `cancel` is set: it is looked at before every
// step. Errors: those of check_request, of `next` and of on_done. Nothing else may use the engine meanwhile.
Result<BatchCounts> generate_batch(Engine& engine, int64_t width,
                                   const std::function<Result<std::optional<BatchItem>>()>& next,
                                   const std::atomic<bool>& cancel);

}  // namespace fathom
