#include "train/data.h"

#include <algorithm>
#include <utility>

namespace fathom::train {

namespace {
// More in a row than any mix can draw by chance where only some are too long.
constexpr int64_t kMaxPassedOver = 10'000;
}  // namespace

void Pack::append(const TokenExample& example) {
  const auto first = static_cast<int32_t>(token.size());
  const size_t n = example.tokens.size();
  for (size_t i = 0; i + 1 < n; ++i) {
    const bool more = i + 2 < n;
    token.push_back(example.tokens[i]);
    next.push_back(example.tokens[i + 1]);
    weight.push_back(example.weight[i + 1]);
    after_next.push_back(more ? example.tokens[i + 2] : 0);
    mtp_weight.push_back(more ? example.weight[i + 2] : 0);
    begin.push_back(first);
    position.push_back(static_cast<int32_t>(i));
  }
}

Result<Batch> make_batch(const ExampleSource& source, int64_t step, int64_t batch_tokens, int64_t sequence_length) {
  Batch batch;
  std::vector<TokenExample> examples;
  for (int64_t n = 0, passed_over = 0; batch.rows < batch_tokens; ++n) {
    FATHOM_TRY(TokenExample example, source.example(step, n));
    if (example.rows() > sequence_length || example.rows() < 1) {
      if (++passed_over > kMaxPassedOver)
        return fail("{} examples in a row are longer than sequence_length, which is {}: raise it", kMaxPassedOver,
                    sequence_length);
      continue;
    }
    passed_over = 0;
    batch.rows += example.rows();
    examples.push_back(std::move(example));
  }
  batch.examples = static_cast<int64_t>(examples.size());
  std::ranges::stable_sort(examples, std::greater<>{}, &TokenExample::rows);
  for (const TokenExample& example : examples) {
    auto pack =
        std::ranges::find_if(batch.packs, [&](const Pack& p) { return p.rows() + example.rows() <= sequence_length; });
    if (pack == batch.packs.end()) pack = batch.packs.emplace(pack);
    pack->append(example);
  }
  for (const Pack& pack : batch.packs) {
    for (const float w : pack.weight) batch.weight += w;
    for (const float w : pack.mtp_weight) batch.mtp_weight += w;
  }
  return batch;
}

BatchQueue::BatchQueue(std::unique_ptr<ExampleSource> source, int64_t steps, int64_t batch_tokens,
                       int64_t sequence_length)
    : source_(std::move(source)), steps_(steps), batch_tokens_(batch_tokens), sequence_length_(sequence_length) {}

std::future<Result<Batch>> BatchQueue::start(int64_t step) const {
  return std::async(std::launch::async,
                    [this, step] { return make_batch(*source_, step, batch_tokens_, sequence_length_); });
}

Result<Batch> BatchQueue::take(int64_t step) {
  if (step != coming_step_) coming_ = start(step);
  Result<Batch> batch = coming_.get();
  coming_step_ = step + 1 < steps_ ? step + 1 : -1;
  if (coming_step_ >= 0) coming_ = start(coming_step_);
  return batch;
}

}  // namespace fathom::train
