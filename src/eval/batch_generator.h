// Many answers at once: every step takes a token of each answer under way, and prompts that follow.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "engine/engine.h"

namespace fathom {

struct BatchRequest {
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

// Answers what `next` gives out until it gives nothing more, at most `width` at a time, first come, first served: one
// is begun as soon as the engine's cache has room for its prompt and its longest answer. Each answer has the bits that
// it has alone. Stops, without the answers under way, when `cancel` is set: it is looked at before every step. Errors:
// those of check_request, of `next` and of on_done. Nothing else may use the engine meanwhile.
Result<BatchCounts> generate_batch(Engine& engine, int64_t width,
                                   const std::function<Result<std::optional<BatchRequest>>()>& next,
                                   const std::atomic<bool>& cancel);

}  // namespace fathom
