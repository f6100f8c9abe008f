#include "train/key_blocks.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace fathom::train {

std::span<const int32_t> selected_keys(const KeyArgs& keys, int64_t t) {
  const int32_t* row = keys.selected + t * keys.top_k;
  int64_t count = 0;
  for (; count < keys.top_k && row[count] >= 0; ++count)
    FATHOM_CHECK(row[count] >= keys.begin[t] && row[count] <= t && (count == 0 || row[count] > row[count - 1]),
                 "key {} of row {} is {}, before it {}, the sequence begins at {}", count, t, row[count],
                 count ? row[count - 1] : -1, keys.begin[t]);
  FATHOM_CHECK(count > 0, "row {} has no key", t);
  return {row, static_cast<size_t>(count)};
}

KeyBlocks::KeyBlocks(Workspace& ws, const KeyArgs& keys, int64_t tokens_per_block)
    : keys_(keys), tokens_(tokens_per_block) {
  if (all()) return;
  unions_.resize(static_cast<size_t>(count()));
  ws.for_each(count(), [&](int64_t i, Arena& scratch) { unions_[static_cast<size_t>(i)] = make_union(i, scratch); });
}

KeyBlocks::Union KeyBlocks::make_union(int64_t i, Arena& scratch) const {
  const int64_t token = i * tokens_, words = pieces(end(i), 64);
  uint64_t* bits = take<uint64_t>(scratch, words);
  int32_t* before = take<int32_t>(scratch, words);  // keys of the union below a word's first
  std::memset(bits, 0, sizeof(uint64_t) * static_cast<size_t>(words));
  for (int64_t t = token; t < end(i); ++t)
    for (const int32_t key : selected_keys(keys_, t)) bits[key / 64] |= uint64_t{1} << (key % 64);
  Union u;
  for (int64_t w = 0; w < words; ++w) {
    before[w] = static_cast<int32_t>(u.rows.size());
    for (uint64_t rest = bits[w]; rest; rest &= rest - 1)
      u.rows.push_back(static_cast<int32_t>(w * 64 + std::countr_zero(rest)));
  }
  const int64_t tokens = end(i) - token;
  u.mask.resize(static_cast<size_t>(pieces(static_cast<int64_t>(u.rows.size()), kPanel) * tokens));
  for (int64_t t = token; t < end(i); ++t) {
    const int32_t* row = keys_.selected + t * keys_.top_k;
    for (int64_t j = 0; j < keys_.top_k && row[j] >= 0; ++j) {
      const int64_t w = row[j] / 64;
      const int64_t place = before[w] + std::popcount(bits[w] & ((uint64_t{1} << (row[j] % 64)) - 1));
      u.mask[static_cast<size_t>(place / kPanel * tokens + t - token)] |= uint64_t{1} << (place % kPanel);
    }
  }
  return u;
}

KeyBlock KeyBlocks::block(int64_t i, Arena& scratch) const {
  KeyBlock b{};
  b.token = i * tokens_;
  b.tokens = end(i) - b.token;
  if (!all()) {
    const Union& u = unions_[static_cast<size_t>(i)];
    b.keys = static_cast<int64_t>(u.rows.size());
    b.panels = pieces(b.keys, kPanel);
    b.rows = u.rows.data();
    b.mask = u.mask.data();
    return b;
  }
  b.first_key = keys_.begin[b.token] / kPanel * kPanel;
  b.keys = keys_.rows - b.first_key;  // whole panels, later keys masked: packed panels are shared by all blocks
  b.panels = pieces(end(i) - b.first_key, kPanel);
  uint64_t* mask = take<uint64_t>(scratch, b.panels * b.tokens);
  for (int64_t p = 0; p < b.panels; ++p)
    for (int64_t t = 0; t < b.tokens; ++t) {
      const int64_t base = b.first_key + p * kPanel;
      const int64_t low = std::max<int64_t>(keys_.begin[b.token + t] - base, 0);
      const int64_t high = std::min(b.token + t - base, kPanel - 1);  // inclusive
      mask[p * b.tokens + t] = low > high ? 0 : (~uint64_t{0} << low) & (~uint64_t{0} >> (63 - high));
    }
  b.mask = mask;
  return b;
}

std::vector<std::pair<int64_t, int64_t>> KeyBlocks::runs(int64_t count) const {
  const auto work = [&](int64_t i) {
    return all() ? end(i) - keys_.begin[i * tokens_]
                 : static_cast<int64_t>(unions_[static_cast<size_t>(i)].rows.size());
  };
  int64_t total = 0, done = 0;
  for (int64_t i = 0; i < this->count(); ++i) total += work(i);
  std::vector<std::pair<int64_t, int64_t>> runs;
  int64_t first = 0;
  for (int64_t i = 0; i < this->count(); ++i) {
    done += work(i);
    if (done * count >= total * (static_cast<int64_t>(runs.size()) + 1) || i + 1 == this->count()) {
      runs.emplace_back(first, i + 1);
      first = i + 1;
    }
  }
  return runs;
}

std::pair<int64_t, int64_t> KeyBlocks::touched(std::pair<int64_t, int64_t> run) const {
  return {keys_.begin[run.first * tokens_] / kPanel * kPanel, end(run.second - 1)};
}

}  // namespace fathom::train
