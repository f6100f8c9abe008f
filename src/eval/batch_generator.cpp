#include "eval/batch_generator.h"

#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/clock.h"

namespace fathom {

namespace {

// Nobody waits for these answers to flow: prompts are read a chunk at a time.
constexpr double kAnySlowdown = 1e6;

}  // namespace

Result<BatchCounts> generate_batch(Engine& engine, int64_t width,
                                   const std::function<Result<std::optional<BatchItem>>()>& next,
                                   const std::atomic<bool>& cancel) {
  FATHOM_CHECK(width >= 1, "width {}", width);
  const auto start = std::chrono::steady_clock::now();
  BatchCounts counts;
  Status status;
  int64_t under_way = 0;
  bool more = true;
  Batcher batcher(engine, {.max_running = width, .slowdown = kAnySlowdown});
  while (!cancel) {
    while (more && under_way < width) {
      FATHOM_TRY(std::optional<BatchItem> item, next());
      more = item.has_value();
      if (!more) break;
      BatchRequest request;
      request.generation = std::move(item->generation);
      request.on_text = [on_text = std::move(item->on_text)](int64_t, std::string_view text, auto) {
        if (!text.empty()) on_text(text);
      };
      request.on_done = [&, on_done = std::move(item->on_done)](int64_t, const GenerationResult& result) {
        --under_way;
        if (!status) return;
        counts.answers += 1;
        counts.prompt_tokens += result.prompt_tokens;
        counts.answer_tokens += static_cast<int64_t>(result.tokens.size());
        status = on_done(result);
      };
      FATHOM_RETURN_IF_ERROR(batcher.submit(std::move(request)));
      ++under_way;
    }
    if (!batcher.step()) break;
    if (!status) return tl::unexpected(status.error());
  }
  counts.seconds = seconds_since(start);
  return counts;
}

}  // namespace fathom
