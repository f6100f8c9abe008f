// An answer while it is generated: from logits to text, and when it ends. The same whoever runs the steps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/sampler.h"
#include "engine/stop_matcher.h"
#include "grammar/matcher.h"
#include "text/stream_decoder.h"

namespace fathom {

// Not thread-safe. The engine and the request, which check_request has accepted, must outlive it.
class Answer {
 public:
  // choice: which of several answers to the request; sampled with its seed + choice.
  Answer(const Engine& engine, const GenerationRequest& request, int64_t choice = 0);

  // Takes the next token from its logits (V). The text that is certain to belong to the answer now; may be empty. Not
  // to be called once it has ended.
  std::string push(std::span<const float> logits);
  // A draft of the next token, from another's guess of its logits (V): what would be taken if they were right. It has the
  // random number of that token, so a guess that is close in distribution is mostly the same token.
  int32_t foresee(std::span<const float> logits) { return sampler_.foresee(logits, allowed()); }
  // An end-of-sentence token, a stop string, the longest length, or a failure.
  bool ended() const { return result_.finish != FinishReason::kCancelled; }
  int64_t tokens() const { return static_cast<int64_t>(result_.tokens.size()); }
  int64_t room() const { return limit_ - tokens(); }
  int32_t last_token() const { return result_.tokens.back().id; }

  // No more tokens come: the text that was held back.
  std::string finish();
  // Cancelled if it has not ended; cached tokens, drafts and times are left for the caller to fill in.
  const GenerationResult& result() const { return result_; }
  GenerationResult& result() { return result_; }

  // Tokens of the longest answer that the request and the context allow.
  static int64_t limit(const Engine& engine, const GenerationRequest& request);

 private:
  std::string keep(std::string text);
  void begin_grammar();
  std::span<const uint64_t> allowed();

  const Engine& engine_;
  const GenerationRequest& request_;
  const int64_t limit_;
  Sampler sampler_;
  StreamDecoder decoder_;
  StopMatcher stops_;
  const int32_t end_of_reasoning_;         // "</think>"; −1: the vocabulary has none
  std::optional<GrammarMatcher> matcher_;  // from where the grammar holds
  std::vector<uint64_t> allowed_;          // by it, next; empty: not known yet
  GenerationResult result_;
};

}  // namespace fathom
