#include "engine/answer.h"

#include <utility>

#include "base/check.h"
#include "text/chat_tokens.h"

namespace fathom {

namespace {

SamplingParams of_choice(SamplingParams params, int64_t choice) {
  params.seed += static_cast<uint64_t>(choice);
  return params;
}

}  // namespace

Answer::Answer(const Engine& engine, const GenerationRequest& request, int64_t choice)
    : engine_(engine),
      request_(request),
      limit_(limit(engine, request)),
      sampler_(of_choice(request.sampling, choice), request.prompt),
      decoder_(engine.tokenizer(), /*skip_special=*/true),
      stops_(request.stop),
      end_of_reasoning_(engine.tokenizer().id_of(chat_tokens::kEndThink).value_or(-1)) {
  result_.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  result_.finish = FinishReason::kCancelled;
  if (!request.in_reasoning) begin_grammar();
}

void Answer::begin_grammar() {
  if (request_.grammar) matcher_.emplace(request_.grammar, engine_.token_table());
}

std::span<const uint64_t> Answer::allowed() {
  if (!matcher_) return {};
  if (allowed_.empty()) {
    const int32_t eos = static_cast<int32_t>(engine_.config().eos_token_id);
    allowed_.resize(engine_.token_table()->mask_words());
    matcher_->allowed(allowed_);
    if (matcher_->complete() && !request_.ignore_eos) set_bit(allowed_, eos);
  }
  return allowed_;
}

int64_t Answer::limit(const Engine& engine, const GenerationRequest& request) {
  const int64_t room = engine.context() - static_cast<int64_t>(request.prompt.size());
  return request.max_tokens > 0 ? std::min(request.max_tokens, room) : room;
}

std::string Answer::push(std::span<const float> logits) {
  FATHOM_CHECK(!ended(), "a token after the end, the {}th", tokens() + 1);
  result_.tokens.push_back(sampler_.sample(logits, request_.logprobs, request_.top_logprobs, allowed()));
  const int32_t id = last_token();
  allowed_.clear();
  const bool ends =
      (id == engine_.config().eos_token_id && !request_.ignore_eos) ||
      std::find(request_.stop_tokens.begin(), request_.stop_tokens.end(), id) != request_.stop_tokens.end();
  // Where logits are no numbers, any token may come out of them.
  if (!std::isfinite(logits[static_cast<size_t>(id)]) || (matcher_ && !ends && !matcher_->accept(id))) {
    result_.finish = FinishReason::kFailed;
    return {};
  }
  std::string text = ends ? "" : stops_.push(decoder_.push(id));
  if (!matcher_ && !ends && id == end_of_reasoning_) begin_grammar();
  if (ends || stops_.matched() || (matcher_ && matcher_->finished()))
    result_.finish = FinishReason::kStop, result_.stop = stops_.match();
  else if (tokens() == limit_)
    result_.finish = FinishReason::kLength;
  return keep(std::move(text));
}

std::string Answer::finish() {
  std::string text;
  if (!stops_.matched()) text = stops_.push(decoder_.finish());
  if (!stops_.matched()) text += stops_.finish();
  return keep(std::move(text));
}

std::string Answer::keep(std::string text) {
  result_.text += text;
  return text;
}

}  // namespace fathom
