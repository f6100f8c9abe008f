// One answer's way through a grammar.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "grammar/grammar.h"
#include "grammar/state.h"
#include "grammar/token_table.h"

namespace fathom {

// Not thread-safe, but copies of one may be used from different threads. Copying takes the same time after any number of
// tokens.
class GrammarMatcher {
 public:
  GrammarMatcher(std::shared_ptr<const Grammar> grammar, const std::shared_ptr<const TokenTable>& tokens);

  // The tokens that may come next, 1 bit a token id: all words are written, TokenTable::mask_words of them. Never empty
  // but when finished: whatever was accepted so far can be completed. The token that ends the answer is not among them:
  // it may come when complete.
  void allowed(std::span<uint64_t> mask) const;
  // The next token. False, and nothing changed, when it is not allowed.
  bool accept(int32_t token);
  // Takes back the last tokens: as many as were accepted, at most.
  void rollback(int64_t tokens);
  int64_t tokens() const { return last_->count; }

  bool complete() const { return last_->state->accepts; }                      // the text so far is a whole instance
  bool finished() const { return complete() && last_->state->cells.empty(); }  // and nothing else can follow

 private:
  // The positions so far, shared by copies.
  struct Step {
    StatePtr state;
    mutable std::shared_ptr<const Step> before;
    int64_t count = 0;
    Step(StatePtr s, std::shared_ptr<const Step> b, int64_t c) : state(std::move(s)), before(std::move(b)), count(c) {}
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;
    ~Step();  // of a long list without recursion
  };

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<Masker> masker_;
  std::shared_ptr<const Step> last_;
};

}  // namespace fathom
