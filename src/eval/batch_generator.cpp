#include "eval/batch_generator.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/answer.h"

namespace fathom {

namespace {

using Next = std::function<Result<std::optional<BatchRequest>>()>;

// An answer under way; it stays where it is, its parts refer to each other.
struct Active {
  Active(Engine& engine, BatchRequest asked)
      : request(std::move(asked)), kv(engine.kv_pool()), answer(engine, request.generation) {}

  int64_t prompt_size() const { return static_cast<int64_t>(request.generation.prompt.size()); }
  bool reads() const { return rows < prompt_size(); }

  BatchRequest request;
  KvSequence kv;
  Answer answer;
  int64_t rows = 0;  // in the cache
};

class Batch {
 public:
  Batch(Engine& engine, int64_t width, const Next& next)
      : engine_(engine), width_(static_cast<size_t>(width)), next_(next) {}

  Result<BatchCounts> run(const std::atomic<bool>& cancel) {
    const auto start = std::chrono::steady_clock::now();
    FATHOM_RETURN_IF_ERROR(admit());
    while (!active_.empty() && !cancel) {
      FATHOM_RETURN_IF_ERROR(step());
      FATHOM_RETURN_IF_ERROR(admit());
    }
    counts_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return counts_;
  }

 private:
  // Begins requests while there is room for them.
  Status admit() {
    while (active_.size() < width_) {
      if (!waiting_) {
        FATHOM_TRY(std::optional<BatchRequest> request, next_());
        if (!request) return {};
        FATHOM_RETURN_IF_ERROR(check_request(engine_.config(), engine_.context(), request->generation));
        waiting_ = std::make_unique<Active>(engine_, *std::move(request));
      }
      // All that it may come to need, so that no answer is ever stuck half-way.
      const int64_t need = waiting_->prompt_size() + Answer::limit(engine_, waiting_->request.generation);
      if (!waiting_->kv.reserve(need)) {
        FATHOM_CHECK(!active_.empty(), "an empty cache has no room for {} tokens, with a context of {}", need,
                     engine_.context());
        return {};
      }
      active_.push_back(std::move(waiting_));
    }
    return {};
  }

  // One token of every answer, and up to a chunk of prompts.
  Status step() {
    tokens_.clear(), slices_.clear(), logit_rows_.clear(), stepped_.clear();
    int64_t room = engine_.settings().chunk;
    for (const auto& a : active_) {
      const std::vector<int32_t>& prompt = a->request.generation.prompt;
      const bool reads = a->reads();
      const int64_t count = reads ? std::min(room, a->prompt_size() - a->rows) : 1;
      if (count == 0) continue;
      slices_.push_back({a->rows, count, a->kv.blocks(), reads});
      if (reads) {
        room -= count;
        tokens_.insert(tokens_.end(), prompt.begin() + a->rows, prompt.begin() + a->rows + count);
      } else {
        tokens_.push_back(a->answer.last_token());
      }
      a->rows += count;
      if (a->reads()) continue;
      logit_rows_.push_back(static_cast<int32_t>(tokens_.size()) - 1);
      stepped_.push_back(a.get());
    }
    Step step;
    step.tokens = tokens_;
    step.slices = slices_;
    step.kv = &engine_.kv_pool().cache();
    step.logit_rows = logit_rows_;
    const StepOutput out = engine_.runner().forward(step);
    for (size_t i = 0; i < stepped_.size(); ++i) {
      const float* row = out.logits.row(static_cast<int64_t>(i));
      FATHOM_RETURN_IF_ERROR(take(*stepped_[i], {row, static_cast<size_t>(out.logits.cols())}));
    }
    std::erase_if(active_, [](const auto& a) { return a->answer.ended(); });
    return {};
  }

  Status take(Active& a, std::span<const float> logits) {
    const auto show = [&](const std::string& text) {
      if (!text.empty()) a.request.on_text(text);
    };
    show(a.answer.push(logits));
    if (!a.answer.ended()) return {};
    show(a.answer.finish());
    counts_.answers += 1;
    counts_.prompt_tokens += a.prompt_size();
    counts_.answer_tokens += a.answer.tokens();
    return a.request.on_done(a.answer.result());
  }

  Engine& engine_;
  const size_t width_;
  const Next& next_;
  std::vector<std::unique_ptr<Active>> active_;
  std::unique_ptr<Active> waiting_;  // for room in the cache
  BatchCounts counts_;
  // Of the step under way.
  std::vector<int32_t> tokens_, logit_rows_;
  std::vector<Slice> slices_;
  std::vector<Active*> stepped_;  // those with logits
};

}  // namespace

Result<BatchCounts> generate_batch(Engine& engine, int64_t width, const Next& next, const std::atomic<bool>& cancel) {
  FATHOM_CHECK(width >= 1, "width {}", width);
  return Batch(engine, width, next).run(cancel);
}

}  // namespace fathom
