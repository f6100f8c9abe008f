#include "grammar/matcher.h"

#include <utility>

#include "base/check.h"
#include "grammar/masker.h"

namespace fathom {

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar, const std::shared_ptr<const TokenTable>& tokens)
    : grammar_(std::move(grammar)),
      masker_(grammar_->masker(tokens)),
      last_(std::make_shared<const Step>(Stepper().start(grammar_->root()), nullptr, 0)) {}

GrammarMatcher::Step::~Step() {
  std::shared_ptr<const Step> next = std::move(before);
  while (next != nullptr && next.use_count() == 1) next = std::exchange(next->before, nullptr);
}

void GrammarMatcher::allowed(std::span<uint64_t> mask) const { masker_->allowed(*last_->state, mask); }

bool GrammarMatcher::accept(int32_t token) {
  const TokenTable& tokens = *masker_->tokens();
  const std::string_view bytes = tokens.token_bytes(token);
  if (bytes.empty() || bytes.size() > TokenTree::kMaxDepth) return false;
  const bool mark = tokens.is_mark(token);
  Stepper stepper;
  StatePtr state = last_->state;
  for (const char c : bytes) {
    state = stepper.step(*state, static_cast<uint8_t>(c), mark);
    if (state == nullptr) return false;
  }
  last_ = std::make_shared<const Step>(std::move(state), last_, last_->count + 1);
  return true;
}

void GrammarMatcher::rollback(int64_t tokens) {
  FATHOM_CHECK(0 <= tokens && tokens <= last_->count, "{} tokens to take back of {}", tokens, last_->count);
  for (; tokens > 0; --tokens) last_ = last_->before;
}

}  // namespace fathom
