#include "grammar/token_table.h"

#include <algorithm>
#include <array>
#include <utility>

#include "grammar/limits.h"

namespace fathom {

namespace {

// UTF-8 as an automaton: how far a character is. 0: between characters.
constexpr size_t kUtf8States = 8;
constexpr uint8_t kBroken = 0xFF;

uint8_t utf8_next(uint8_t state, uint8_t byte) {
  const auto in = [byte](uint8_t first, uint8_t last) { return first <= byte && byte <= last; };
  switch (state) {
    case 0:
      if (byte < 0x80) return 0;
      if (in(0xC2, 0xDF)) return 1;
      if (byte == 0xE0) return 4;
      if (byte == 0xED) return 5;
      if (in(0xE1, 0xEF)) return 2;
      if (byte == 0xF0) return 6;
      if (in(0xF1, 0xF3)) return 3;
      return byte == 0xF4 ? 7 : kBroken;
    case 1:
    case 2:
    case 3:
      return in(0x80, 0xBF) ? static_cast<uint8_t>(state - 1) : kBroken;
    case 4:
      return in(0xA0, 0xBF) ? 1 : kBroken;
    case 5:
      return in(0x80, 0x9F) ? 1 : kBroken;
    case 6:
      return in(0x90, 0xBF) ? 2 : kBroken;
    default:
      return in(0x80, 0x8F) ? 2 : kBroken;
  }
}

using Tokens = std::vector<std::pair<std::string_view, int32_t>>;

enum class TokenKind { kShort, kLong, kMark };

Tokens tokens_of(const Tokenizer& tokenizer, TokenKind kind) {
  Tokens tokens;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    if (bytes.empty() || bytes.size() > TokenTree::kMaxDepth) continue;
    const bool mark = tokenizer.is_added(id) || tokenizer.is_special(id);
    const TokenKind of_token = mark                                      ? TokenKind::kMark
                               : bytes.size() > grammar_limits::kHorizon ? TokenKind::kLong
                                                                         : TokenKind::kShort;
    if (of_token == kind) tokens.emplace_back(bytes, id);
  }
  return tokens;
}

}  // namespace

TokenTree::TokenTree(Tokens tokens) {
  std::ranges::sort(tokens);
  std::vector<uint32_t> path;  // the nodes that lead to the token before
  std::string_view before;
  for (const auto& [bytes, id] : tokens) {
    const size_t common = static_cast<size_t>(std::ranges::mismatch(before, bytes).in1 - before.begin());
    for (; path.size() > common; path.pop_back()) nodes_[path.back()].end = static_cast<uint32_t>(nodes_.size());
    for (size_t i = common; i < bytes.size(); ++i) {
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      Node node{};
      node.byte = static_cast<uint8_t>(bytes[i]);
      node.depth = static_cast<uint8_t>(i + 1);
      node.first_token = node.own_end = static_cast<uint32_t>(tokens_.size());
      nodes_.push_back(node);
    }
    tokens_.push_back(id);
    nodes_[path.back()].own_end = static_cast<uint32_t>(tokens_.size());
    before = bytes;
  }
  for (const uint32_t node : path) nodes_[node].end = static_cast<uint32_t>(nodes_.size());
  describe();
}

std::span<const int32_t> TokenTree::below(const Node& node) const {
  const size_t end = node.end < nodes_.size() ? nodes_[node.end].first_token : tokens_.size();
  return std::span(tokens_).subspan(node.first_token, end - node.first_token);
}

// From the leaves up: for each state of UTF-8 before a node's byte, the characters that begin from there on.
void TokenTree::describe() {
  std::vector<std::array<uint16_t, kUtf8States>> characters(nodes_.size());
  for (size_t i = nodes_.size(); i-- > 0;) {
    Node& node = nodes_[i];
    node.ascii = {};
    node.high = node.byte >= 0x80;
    if (node.byte < 0x80) node.ascii[node.byte >> 6] |= uint64_t{1} << (node.byte & 63);
    for (size_t child = i + 1; child < node.end; child = nodes_[child].end) {
      node.high = node.high || nodes_[child].high;
      node.ascii[0] |= nodes_[child].ascii[0];
      node.ascii[1] |= nodes_[child].ascii[1];
    }
    for (uint8_t state = 0; state < kUtf8States; ++state) {
      const uint8_t after = utf8_next(state, node.byte);
      uint16_t most = after == kBroken ? kNotText : 0;
      for (size_t child = i + 1; child < node.end && most != kNotText; child = nodes_[child].end) {
        most = std::max(most, characters[child][after]);
      }
      if (most != kNotText && state == 0) ++most;
      characters[i][state] = most;
    }
    node.characters = characters[i][0];
  }
}

TokenTable::TokenTable(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer),
      short_(tokens_of(tokenizer, TokenKind::kShort)),
      long_(tokens_of(tokenizer, TokenKind::kLong)),
      marks_(tokens_of(tokenizer, TokenKind::kMark)) {}

std::shared_ptr<const TokenMask> TokenTable::run_mask(const TextRun& run) const {
  {
    const std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find(run_masks_, run, &std::pair<TextRun, std::shared_ptr<const TokenMask>>::first);
    if (found != run_masks_.end()) {
      run_masks_.splice(run_masks_.begin(), run_masks_, found);
      return found->second;
    }
  }
  auto mask = std::make_shared<TokenMask>(mask_words());
  const bool any = run.high == TextRun::High::kAny;
  struct Before {
    uint8_t utf8;
    uint32_t characters;
  };
  std::array<Before, TokenTree::kMaxDepth + 1> path;
  path[0] = {0, 0};
  const auto nodes = short_.nodes();
  for (size_t i = 0; i < nodes.size();) {
    const TokenTree::Node& node = nodes[i];
    const Before before = path[node.depth - size_t{1}];
    TextRun rest = run;
    if (run.characters != kUnlimited) rest.characters -= before.characters;
    if (before.utf8 == 0 && TokenTree::covers(rest, node)) {
      for (const int32_t token : short_.below(node)) set_bit(*mask, token);
      i = node.end;
      continue;
    }
    const bool begins = any || before.utf8 == 0;
    const uint8_t after = any ? 0 : utf8_next(before.utf8, node.byte);
    const bool fits = (node.byte < 0x80 ? run.has(node.byte) : run.high != TextRun::High::kNone) && after != kBroken;
    if (!fits || (begins && rest.characters == 0)) {
      i = node.end;
      continue;
    }
    for (const int32_t token : short_.own(node)) set_bit(*mask, token);
    path[node.depth] = {after, before.characters + (begins ? 1 : 0)};
    ++i;
  }
  const std::scoped_lock lock(mutex_);
  run_masks_.emplace_front(run, mask);
  if (run_masks_.size() > kMaxRunMasks) run_masks_.pop_back();
  return mask;
}

}  // namespace fathom
