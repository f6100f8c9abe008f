#include "text/bpe_merges.h"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <unordered_set>

namespace fathom {

namespace {

// Counts of pairs are kept up to date: a merge touches only the pieces that have its pair, and a heap with outdated
// entries, recognised by their count, finds the next pair.
class Merger {
 public:
  Merger(const std::vector<std::pair<std::string_view, int64_t>>& pieces, int64_t min_count) : min_count_(min_count) {
    for (int byte = 0; byte < 256; ++byte) tokens_.emplace_back(1, static_cast<char>(byte));
    words_.reserve(pieces.size());
    for (const auto& [piece, count] : pieces) {
      Word word{{}, count};
      for (const char byte : piece) word.ids.push_back(static_cast<uint8_t>(byte));
      words_.push_back(std::move(word));
      count_pairs(words_.size() - 1, count, [](Id, Id) { return true; });
    }
    push_changed();
  }

  std::vector<TrainedBpe::Merge> merge(size_t count) {
    std::vector<TrainedBpe::Merge> merges;
    while (merges.size() < count && !heap_.empty()) {
      const Candidate best = heap_.top();
      heap_.pop();
      const auto found = pairs_.find(key(best.left, best.right));
      if (found == pairs_.end() || found->second.count != best.count) continue;  // outdated
      const std::string &left = tokens_[best.left], &right = tokens_[best.right];
      merges.push_back({left, right});
      apply(best, found->second.words);
    }
    return merges;
  }

 private:
  using Id = uint32_t;
  struct Word {
    std::vector<Id> ids;
    int64_t count;
  };
  struct Pair {
    int64_t count = 0;
    std::vector<uint32_t> words;  // where it stands or stood; some more than once
  };
  struct Candidate {
    int64_t count;
    Id left, right;
  };
  struct Later {
    const std::vector<std::string>& tokens;
    bool operator()(const Candidate& a, const Candidate& b) const {
      if (a.count != b.count) return a.count < b.count;
      if (a.left != b.left) return tokens[a.left] > tokens[b.left];
      return tokens[a.right] > tokens[b.right];
    }
  };

  static uint64_t key(Id left, Id right) { return (uint64_t{left} << 32) | right; }

  // Adds `amount` to each pair of the word; `remember(left, right)`: the pair was not in this word before.
  template <typename Remember>
  void count_pairs(size_t index, int64_t amount, const Remember& remember) {
    const std::vector<Id>& ids = words_[index].ids;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const uint64_t pair = key(ids[i], ids[i + 1]);
      Pair& entry = pairs_[pair];
      entry.count += amount;
      changed_.insert(pair);
      if (amount > 0 && remember(ids[i], ids[i + 1])) entry.words.push_back(static_cast<uint32_t>(index));
    }
  }

  void apply(const Candidate& best, std::vector<uint32_t>& where) {
    const Id merged = static_cast<Id>(tokens_.size());
    tokens_.push_back(tokens_[best.left] + tokens_[best.right]);
    const std::vector<uint32_t> indices = std::move(where);  // not needed again
    for (const uint32_t index : indices) {
      Word& word = words_[index];
      if (!contains(word.ids, best)) continue;
      count_pairs(index, -word.count, [](Id, Id) { return false; });
      replace(word.ids, best, merged);
      count_pairs(index, word.count, [&](Id left, Id right) { return left == merged || right == merged; });
    }
    push_changed();
  }

  static bool contains(const std::vector<Id>& ids, const Candidate& pair) {
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      if (ids[i] == pair.left && ids[i + 1] == pair.right) return true;
    }
    return false;
  }

  static void replace(std::vector<Id>& ids, const Candidate& pair, Id merged) {
    size_t to = 0;
    for (size_t from = 0; from < ids.size(); ++to) {
      const bool here = from + 1 < ids.size() && ids[from] == pair.left && ids[from + 1] == pair.right;
      ids[to] = here ? merged : ids[from];
      from += here ? 2 : 1;
    }
    ids.resize(to);
  }

  void push_changed() {
    for (const uint64_t pair : changed_) {
      const auto found = pairs_.find(pair);
      const int64_t count = found->second.count;
      if (count >= min_count_) heap_.push({count, static_cast<Id>(pair >> 32), static_cast<Id>(pair)});
      if (count == 0) pairs_.erase(found);  // it can only come back in pieces that then name it anew
    }
    changed_.clear();
  }

  int64_t min_count_;
  std::vector<std::string> tokens_;  // bytes by id
  std::vector<Word> words_;
  std::unordered_map<uint64_t, Pair> pairs_;
  std::unordered_set<uint64_t> changed_;
  std::priority_queue<Candidate, std::vector<Candidate>, Later> heap_{Later{tokens_}};
};

}  // namespace

std::vector<TrainedBpe::Merge> learn_merges(const std::vector<std::pair<std::string_view, int64_t>>& pieces,
                                            size_t count, int64_t min_count) {
  return Merger(pieces, min_count).merge(count);
}

}  // namespace fathom
