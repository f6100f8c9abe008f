// Blocks of query tokens and the keys that at least one of them attends to, in panels of 64 with a mask for each token:
// what lets attention over everything and attention over a selection be the same dense products. Neighbouring tokens
// select mostly the same keys, so a block's union is a few times one selection.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "train/fused.h"

namespace fathom::train {

// The keys of row t, checked: rising, visible, at least one.
std::span<const int32_t> selected_keys(const KeyArgs& keys, int64_t t);

struct KeyBlock {
  int64_t token, tokens;  // the queries
  int64_t panels;
  int64_t first_key;     // of panel 0, a multiple of 64; keys follow one another unless `rows` names them
  int64_t keys;          // that exist: the last panel may be short
  const int32_t* rows;   // (keys), rising, or null
  const uint64_t* mask;  // [panel][token]

  // Panel `i` of a matrix with a row for each key.
  RowsView panel(const float* data, int64_t stride, int64_t cols, int64_t i) const {
    const int64_t count = std::min(kPanel, keys - i * kPanel);
    if (rows) return {data, stride, count, cols, rows + i * kPanel};
    return {data + (first_key + i * kPanel) * stride, stride, count, cols};
  }
};

class KeyBlocks {
 public:
  KeyBlocks(Workspace& ws, const KeyArgs& keys, int64_t tokens_per_block);

  int64_t count() const { return pieces(keys_.rows, tokens_); }
  bool all() const { return keys_.selected == nullptr; }
  // Valid until `scratch` is released.
  KeyBlock block(int64_t i, Arena& scratch) const;

  // The blocks in at most `count` runs [first, second) of about equal work.
  std::vector<std::pair<int64_t, int64_t>> runs(int64_t count) const;
  // Keys that blocks [run.first, run.second) may touch, from the first one's first to the last one's last.
  std::pair<int64_t, int64_t> touched(std::pair<int64_t, int64_t> run) const;

 private:
  struct Union {
    std::vector<int32_t> rows;
    std::vector<uint64_t> mask;
  };
  int64_t end(int64_t i) const { return std::min(keys_.rows, (i + 1) * tokens_); }
  Union make_union(int64_t i, Arena& scratch) const;

  KeyArgs keys_;
  int64_t tokens_;
  std::vector<Union> unions_;  // of a selection
};

}  // namespace fathom::train
