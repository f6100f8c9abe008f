// Exact top-k of a stream of scores, without keeping the stream.
#pragma once

#include <cstdint>
#include <span>

#include "cpu/kernels.h"

namespace fathom::cpu {

// Keeps the k best candidates of all that were pushed, equal scores to the lower index, in the order they came. Memory is the
// caller's: `capacity(k)` candidate keys, and `scratch(k)` more, which all streams of a thread can share. Scores must be pushed in
// rising order of index, at most kBlockTokens at a time.
class TopK {
 public:
  // Room beyond k makes the pruning rare: each candidate is moved a constant number of times on average. Behind it, what
  // `candidates` may write too much.
  static int64_t capacity(int64_t k) { return room(k) + 8; }
  static int64_t scratch(int64_t k) { return 2 * room(k) + 16; }

  TopK(const Kernels& kernels, uint64_t* memory, uint64_t* scratch, int64_t k)
      : kernels_(&kernels), keys_(memory), scratch_(scratch), k_(k) {}

  void push(const float* score, int64_t count, int64_t first_index) {
    if (size_ + count > room(k_)) prune();
    size_ += kernels_->candidates(score, count, first_index, threshold_, keys_ + size_);
  }

  // The k best (fewer if fewer were pushed), by rising index.
  std::span<uint64_t> finish() {
    prune();
    return {keys_, static_cast<size_t>(size_)};
  }

 private:
  static int64_t room(int64_t k) { return 2 * k + kBlockTokens; }
  void prune() {
    if (size_ <= k_) return;
    // What does not beat the k-th best can never be chosen.
    threshold_ = kernels_->keep_largest(keys_, size_, k_, scratch_);
    size_ = k_;
  }

  const Kernels* kernels_;
  uint64_t *keys_, *scratch_;
  int64_t k_, size_ = 0;
  uint64_t threshold_ = 0;
};

}  // namespace fathom::cpu
