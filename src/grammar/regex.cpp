#include "grammar/regex.h"

#include <algorithm>
#include <map>
#include <utility>

#include "grammar/limits.h"
#include "grammar/regex_parser.h"

namespace fathom {

namespace {

struct NfaState {
  enum class Kind : uint8_t { kSet, kSplit, kBegin, kEnd, kFinal };
  Kind kind;
  uint32_t set = 0;
  uint32_t next = 0, other = 0;  // other: of a split
};

// Thompson's construction, from the end to the start.
class Nfa {
 public:
  Status build(const RegexTree& tree) {
    states.push_back({NfaState::Kind::kFinal});
    FATHOM_TRY(start, node(tree.root, 0));
    return {};
  }

  std::vector<NfaState> states;
  uint32_t start = 0;

 private:
  Result<uint32_t> add(NfaState state) {
    if (states.size() >= grammar_limits::kMaxNfaStates) {
      return fail("its repetitions, written out, take more than {} states; make them smaller",
                  grammar_limits::kMaxNfaStates);
    }
    states.push_back(state);
    return static_cast<uint32_t>(states.size() - 1);
  }

  // The entry of `tree` when `next` is what follows. Recursion is as deep as groups are nested.
  Result<uint32_t> node(const RegexNode& tree, uint32_t next) {
    switch (tree.kind) {
      case RegexNode::Kind::kSet:
        return add({NfaState::Kind::kSet, tree.set, next});
      case RegexNode::Kind::kBegin:
        return add({NfaState::Kind::kBegin, 0, next});
      case RegexNode::Kind::kEnd:
        return add({NfaState::Kind::kEnd, 0, next});
      case RegexNode::Kind::kConcat:
        for (size_t i = tree.children.size(); i-- > 0;) {
          FATHOM_TRY(next, node(tree.children[i], next));
        }
        return next;
      case RegexNode::Kind::kAlternatives: {
        FATHOM_TRY(uint32_t entry, node(tree.children.back(), next));
        for (size_t i = tree.children.size() - 1; i-- > 0;) {
          FATHOM_TRY(const uint32_t child, node(tree.children[i], next));
          FATHOM_TRY(entry, add({NfaState::Kind::kSplit, 0, child, entry}));
        }
        return entry;
      }
      case RegexNode::Kind::kRepeat:
        return repeat(tree, next);
    }
    return next;
  }

  Result<uint32_t> repeat(const RegexNode& tree, uint32_t next) {
    const RegexNode& body = tree.children[0];
    uint32_t entry = next;
    if (tree.at_most == kUnlimited) {
      FATHOM_TRY(const uint32_t loop, add({NfaState::Kind::kSplit, 0, next, next}));
      FATHOM_TRY(const uint32_t inside, node(body, loop));
      states[loop].next = inside;
      entry = loop;
    } else {
      for (uint32_t i = tree.at_least; i < tree.at_most; ++i) {
        FATHOM_TRY(const uint32_t inside, node(body, entry));
        if (inside == entry) return next;  // the body is empty
        FATHOM_TRY(entry, add({NfaState::Kind::kSplit, 0, inside, next}));
      }
    }
    for (uint32_t i = 0; i < tree.at_least; ++i) {
      FATHOM_TRY(const uint32_t inside, node(body, entry));
      if (inside == entry) break;
      entry = inside;
    }
    return entry;
  }
};

// The subset construction. A state is the set of NFA states that may be next: those that read a character, $ and the
// end, in order; a state in which anything may follow is kEverything alone.
class Determinizer {
 public:
  Determinizer(const Nfa& nfa, const RegexTree& tree, RegexMatch match, size_t most_work)
      : nfa_(nfa), match_(match), most_work_(most_work), stamps_(nfa.states.size()) {
    dfa_.classes = CharacterClasses::of_sets(tree.sets);
    set_classes_.resize(tree.sets.size());
    for (size_t s = 0; s < tree.sets.size(); ++s) {
      std::vector<bool> has(dfa_.classes.count);
      for (size_t i = 0; i < dfa_.classes.starts.size(); ++i) {
        const uint32_t c = dfa_.classes.classes[i];
        if (has[c] || !tree.sets[s].contains(dfa_.classes.starts[i])) continue;
        has[c] = true;
        set_classes_[s].push_back(c);
      }
    }
  }

  size_t work() const { return work_; }

  Result<TextDfa> run() {
    using Key = std::vector<uint32_t>;
    std::map<Key, uint32_t> ids;
    std::vector<Key> subsets{closure({&nfa_.start, 1}, true)};
    const std::vector<uint32_t> restart = closure({&nfa_.start, 1}, false);
    const uint32_t classes = dfa_.classes.count;
    dfa_.table.clear();
    dfa_.accepts.clear();
    std::vector<std::vector<uint32_t>> targets(classes);
    for (uint32_t s = 0; s < subsets.size(); ++s) {
      const Key subset = subsets[s];
      dfa_.accepts.push_back(accepts(subset, s == 0));
      dfa_.table.resize((s + size_t{1}) * classes, TextDfa::kNone);
      if (match_ == RegexMatch::kAnywhere && std::ranges::binary_search(subset, uint32_t{0})) {  // found
        std::fill(dfa_.table.end() - classes, dfa_.table.end(), s);
        continue;
      }
      for (auto& list : targets) list.clear();
      for (const uint32_t n : subset) {
        const NfaState& state = nfa_.states[n];
        if (state.kind != NfaState::Kind::kSet) continue;
        for (const uint32_t c : set_classes_[state.set]) targets[c].push_back(state.next);
        work_ += set_classes_[state.set].size();
      }
      for (uint32_t c = 0; c < classes; ++c) {
        Key next = closure(targets[c], false);
        if (match_ == RegexMatch::kAnywhere) {
          Key joined;
          std::ranges::set_union(next, restart, std::back_inserter(joined));
          next = std::move(joined);
          if (std::ranges::binary_search(next, uint32_t{0})) next = {0};
        }
        work_ += next.size() + 1;
        if (work_ > most_work_) {
          return fail("needs more than the {} steps that are left for it to be made deterministic; make it simpler",
                      most_work_);
        }
        if (next.empty()) continue;
        const auto [found, is_new] = ids.try_emplace(std::move(next), static_cast<uint32_t>(subsets.size()));
        if (is_new) subsets.push_back(found->first);
        dfa_.table[s * size_t{classes} + c] = found->second;
      }
      if (subsets.size() > grammar_limits::kMaxTextStates ||
          subsets.size() * classes > grammar_limits::kMaxTableEntries) {
        return fail("needs more than {} states, or {} entries of its table of transitions; make it simpler",
                    grammar_limits::kMaxTextStates, grammar_limits::kMaxTableEntries);
      }
    }
    dfa_.trim();
    if (dfa_.empty()) return fail("matches no text");
    return std::move(dfa_);
  }

 private:
  std::vector<uint32_t> closure(std::span<const uint32_t> from, bool at_begin, bool at_end = false) {
    ++stamp_;
    std::vector<uint32_t> result;
    open_.assign(from.begin(), from.end());
    while (!open_.empty()) {
      const uint32_t n = open_.back();
      open_.pop_back();
      ++work_;
      if (std::exchange(stamps_[n], stamp_) == stamp_) continue;
      const NfaState& state = nfa_.states[n];
      switch (state.kind) {
        case NfaState::Kind::kSplit:
          open_.push_back(state.other);
          open_.push_back(state.next);
          break;
        case NfaState::Kind::kBegin:
          if (at_begin) open_.push_back(state.next);
          break;
        case NfaState::Kind::kEnd:
          if (at_end) open_.push_back(state.next);
          result.push_back(n);
          break;
        case NfaState::Kind::kSet:
        case NfaState::Kind::kFinal:
          result.push_back(n);
          break;
      }
    }
    std::ranges::sort(result);
    return result;
  }

  bool accepts(const std::vector<uint32_t>& subset, bool at_begin) {
    return std::ranges::binary_search(closure(subset, at_begin, true), uint32_t{0});
  }

  const Nfa& nfa_;
  const RegexMatch match_;
  const size_t most_work_;
  TextDfa dfa_;
  std::vector<std::vector<uint32_t>> set_classes_;
  std::vector<uint64_t> stamps_;
  uint64_t stamp_ = 0;
  std::vector<uint32_t> open_;
  size_t work_ = 0;
};

}  // namespace

Result<TextDfa> compile_regex(std::string_view pattern, RegexMatch match, size_t& work_left) {
  FATHOM_TRY(const RegexTree tree, parse_regex(pattern));
  Nfa nfa;
  FATHOM_RETURN_IF_ERROR(nfa.build(tree));
  Determinizer determinizer(nfa, tree, match, std::min(work_left, grammar_limits::kMaxPatternWork));
  auto dfa = determinizer.run();
  work_left -= std::min(work_left, determinizer.work() + nfa.states.size());
  return dfa;
}

Result<TextDfa> compile_regex(std::string_view pattern, RegexMatch match) {
  size_t work_left = grammar_limits::kMaxPatternWork;
  return compile_regex(pattern, match, work_left);
}

}  // namespace fathom
