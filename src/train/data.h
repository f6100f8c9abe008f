// Packed batches: many examples one after the other in one sequence of rows, which do not see each other.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <vector>

#include "base/result.h"
#include "train/examples.h"

namespace fathom::train {

// One forward pass. Row t reads `token`, predicts `next`; the MTP layer reads `next` too and predicts `after_next`.
struct Pack {
  std::vector<int32_t> token;             // (T)
  std::vector<int64_t> next, after_next;  // (T); after_next 0 where the example ends (its weight is 0 there)
  std::vector<float> weight, mtp_weight;  // (T): of the loss of next and after_next
  std::vector<int32_t> begin, position;   // (T): first row of the example, and place in it

  int64_t rows() const { return static_cast<int64_t>(token.size()); }
  void append(const TokenExample& example);
};

struct Batch {
  std::vector<Pack> packs;
  int64_t rows = 0, examples = 0;
  double weight = 0, mtp_weight = 0;  // sums over all packs: losses are means over the step, however it was packed
};

// A function of (source, step, sizes) alone: a resumed run needs no state. Examples are taken until the step has
// batch_tokens rows (so the last may go past it), then put, longest first, into the first pack that has room. Every
// example that is drawn is trained on: dropping what does not fit would drop the long ones. Those that no pack can hold
// are passed over.
Result<Batch> make_batch(const ExampleSource& source, int64_t step, int64_t batch_tokens, int64_t sequence_length);

// Makes the next batch on another thread while one is trained on.
class BatchQueue {
 public:
  BatchQueue(std::unique_ptr<ExampleSource> source, int64_t steps, int64_t batch_tokens, int64_t sequence_length);
  // Steps are asked for one after the other, beginning anywhere.
  Result<Batch> take(int64_t step);

 private:
  std::future<Result<Batch>> start(int64_t step) const;

  std::unique_ptr<ExampleSource> source_;
  int64_t steps_, batch_tokens_, sequence_length_;
  int64_t coming_step_ = -1;
  std::future<Result<Batch>> coming_;  // last: its destructor waits for the thread, which uses the others
};

}  // namespace fathom::train
