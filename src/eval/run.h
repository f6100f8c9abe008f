// A whole test: questions, answers, the log that it can be continued from, the report.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>

#include "base/result.h"
#include "engine/engine.h"
#include "eval/report.h"
#include "eval/settings.h"

namespace fathom {

struct EvalOptions {
  int64_t width = 16;          // answers side by side; changes speed and memory, never an answer
  std::filesystem::path save;  // of the answers with their words (eval/answer_log.h); empty: nowhere
  bool resume = false;         // go on with that file, where there is one
};

// Answers of the report are in the order of the questions, whatever order they came in. When `cancel` is set it holds
// those that were complete by then. Errors: settings, questions longer than the context, the log.
Result<EvalReport> run_eval(Engine& engine, const EvalSettings& settings, const EvalOptions& options,
                            const std::function<void(int64_t done, int64_t total)>& on_progress,
                            const std::atomic<bool>& cancel);

}  // namespace fathom
