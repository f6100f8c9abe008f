// Exact top-k of a stream of scores, without keeping the stream.
#pragma once

#include <cstdint>
#include <span>

#include "cpu/kernels.h"

namespace fathom::cpu {

// Keeps the k best candidates of all that were pushed, equal scores to the lower index. Memory is the caller's:
// `capacity(k)` candidate keys. Scores must be pushed in rising order of index, at most kBlockTokens at a time.
class TopK {
 public:
  // Room beyond k makes the pruning rare: each candidate is moved a constant number of times on average. Behind it, what
  // `candidates` may write too much, and scratch for `select_largest`.
  static int64_t capacity(int64_t k) { return 2 * (room(k) + 8); }

  TopK(const Kernels& kernels, uint64_t* memory, int64_t k) : kernels_(&kernels), keys_(memory), k_(k) {}

  void push(const float* score, int64_t count, int64_t first_index) {
    if (size_ + count > room(k_)) prune();
    size_ += kernels_->candidates(score, count, first_index, threshold_, keys_ + size_);
  }

  // The k best (fewer if fewer were pushed), unordered.
  std::span<uint64_t> finish() {
    prune();
    return {keys_, static_cast<size_t>(size_)};
  }

 private:
  static int64_t room(int64_t k) { return 2 * k + kBlockTokens; }
  void prune() {
    if (size_ <= k_) return;
    // What does not beat the k-th best can never be chosen.
    threshold_ = kernels_->select_largest(keys_, size_, k_, keys_ + room(k_) + 8);
    size_ = k_;
  }

  const Kernels* kernels_;
  uint64_t* keys_;
  int64_t k_, size_ = 0;
  uint64_t threshold_ = 0;
};

}  // namespace fathom::cpu
