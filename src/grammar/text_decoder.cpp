#include "grammar/text_decoder.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <utility>

#include "grammar/limits.h"

namespace fathom {

const TextDecoder::Edge* TextDecoder::edge(uint32_t state, uint8_t byte) const {
  const std::vector<Edge>& edges = states_[state].edges;
  const auto after = std::ranges::upper_bound(edges, byte, {}, &Edge::first);
  if (after == edges.begin()) return nullptr;
  const Edge& found = *(after - 1);
  return byte <= found.last ? &found : nullptr;
}

// A character's code is written digit by digit: six bits in a UTF-8 byte, four in a hexadecimal digit. A `Form` is such
// a way of writing; its automaton is the tree of digits, in which branches whose characters are all of one class are one.
class DecoderBuilder {
 public:
  DecoderBuilder(const CharacterClasses& classes, std::u32string_view never_raw)
      : never_raw_(never_raw), words_((classes.count + 63) / 64) {
    // Characters of never_raw are told apart from others of their class.
    std::vector<char32_t> starts = classes.starts;
    for (const char32_t c : never_raw) starts.insert(starts.end(), {c, c + 1});
    starts.insert(starts.end(), {0xD800, 0xE000});
    std::ranges::sort(starts);
    starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
    for (const char32_t start : starts) {
      const size_t special = never_raw.find(start);
      const bool surrogate = start >= 0xD800 && start < 0xE000;
      starts_.push_back(start);
      labels_.push_back(
          {surrogate ? kUnlimited : classes.of(start), special == never_raw.npos ? char32_t{0} : never_raw[special]});
    }
    const size_t boundaries = std::max<size_t>(never_raw.size(), 1);
    decoder_.states_.resize(boundaries);
    decoder_.boundaries_ = static_cast<uint32_t>(boundaries);
  }

  Result<TextDecoder> build(TextForm form) {
    for (uint32_t b = 0; b < decoder_.boundaries_; ++b) {
      boundary_ = b;
      memo_.clear();
      raw(form);
      if (form == TextForm::kJson) escapes();
      FATHOM_RETURN_IF_ERROR(status_);
    }
    for (auto& state : decoder_.states_) std::ranges::sort(state.edges, {}, &TextDecoder::Edge::first);
    find_reachable();
    return std::move(decoder_);
  }

 private:
  struct Label {
    uint32_t character_class;  // kUnlimited: no character
    char32_t special;          // of never_raw, or 0
    auto operator<=>(const Label&) const = default;
  };
  struct Digit {
    enum class Kind : uint8_t { kContinuation, kHex, kHexHigh, kHexLow };  // 8-B, C-F: of halves of a pair
    Kind kind;
    std::string_view before{};  // bytes that stand before it
    int bits() const { return kind == Kind::kContinuation ? 6 : kind == Kind::kHex ? 4 : 2; }
  };
  using Digits = std::span<const Digit>;
  struct Target {
    uint32_t state;
    uint32_t character_class;
    bool operator==(const Target&) const = default;
  };

  uint32_t new_state() {
    if (decoder_.states_.size() >= grammar_limits::kMaxDecoderStates) {
      status_ = fail("its characters take more than {} states to tell apart", grammar_limits::kMaxDecoderStates);
      return 0;
    }
    decoder_.states_.emplace_back();
    return static_cast<uint32_t>(decoder_.states_.size() - 1);
  }

  void add_edge(uint32_t state, uint8_t first, uint8_t last, Target target) {
    auto& edges = decoder_.states_[state].edges;
    if (!edges.empty() && edges.back().last + 1 == first && edges.back().next == target.state &&
        edges.back().character_class == target.character_class) {
      edges.back().last = last;
    } else {
      edges.push_back({first, last, target.state, target.character_class});
    }
  }

  // The label of all codes from `base` to base + size - 1 that `valid` bounds; none when they differ.
  std::optional<Label> uniform(char32_t base, char32_t size, char32_t least) const {
    constexpr Label kInvalid{kUnlimited, 0};
    if (base + size <= least || base > kLastCharacter) return kInvalid;
    if (base < least || base + size - 1 > kLastCharacter) return std::nullopt;
    const auto after = std::ranges::upper_bound(starts_, base);
    const Label label = labels_[static_cast<size_t>(after - starts_.begin()) - 1];
    if (after != starts_.end() && *after < base + size) return std::nullopt;
    return label;
  }

  // Where a character with this label leads; nothing when it must not come here.
  std::optional<Target> complete(Label label, bool is_raw) const {
    if (label.character_class == kUnlimited) return std::nullopt;
    if (!is_raw || never_raw_.empty() || label.special == 0) return Target{0, label.character_class};
    // The longest beginning of never_raw that the text now ends with: never_raw is a few characters long.
    std::u32string text(never_raw_.substr(0, boundary_));
    text += label.special;
    if (text == never_raw_) return std::nullopt;
    while (!never_raw_.starts_with(text)) text.erase(0, 1);
    return Target{static_cast<uint32_t>(text.size()), label.character_class};
  }

  // The state before `digits` of the codes from `base` on. `key` names the form.
  std::optional<Target> tree(int key, Digits digits, char32_t base, char32_t least, bool is_raw) {
    int bits = 0;
    for (const Digit& digit : digits) bits += digit.bits();
    const auto label = uniform(base, char32_t{1} << bits, least);
    if (label) {
      const auto target = complete(*label, is_raw);
      if (!target || digits.empty()) return target;
      const auto found = memo_.find({key, digits.size(), *label});
      if (found != memo_.end()) return found->second;
    }
    const uint32_t entry = new_state();
    if (!status_) return std::nullopt;
    uint32_t state = entry;
    for (const char c : digits[0].before) {
      const uint32_t next = new_state();
      if (!status_) return std::nullopt;
      add_edge(state, static_cast<uint8_t>(c), static_cast<uint8_t>(c), {next, kUnlimited});
      if (c == 'd') add_edge(state, 'D', 'D', {next, kUnlimited});
      state = next;
    }
    const int rest = bits - digits[0].bits();
    for (char32_t value = 0; value < (char32_t{1} << digits[0].bits()); ++value) {
      const auto target = tree(key, digits.subspan(1), base + (value << rest), least, is_raw);
      if (!status_) return std::nullopt;
      if (target) add_digit(state, digits[0].kind, static_cast<uint8_t>(value), *target);
    }
    const bool empty = decoder_.states_[state].edges.empty();
    const std::optional<Target> result = empty ? std::nullopt : std::optional<Target>({entry, kUnlimited});
    if (label) memo_[{key, digits.size(), *label}] = result;
    return result;
  }

  void add_digit(uint32_t state, Digit::Kind kind, uint8_t value, Target target) {
    if (kind == Digit::Kind::kContinuation) {
      const auto byte = static_cast<uint8_t>(0x80 + value);
      return add_edge(state, byte, byte, target);
    }
    if (kind == Digit::Kind::kHexHigh) value = static_cast<uint8_t>(value + 8);
    if (kind == Digit::Kind::kHexLow) value = static_cast<uint8_t>(value + 12);
    const auto at = static_cast<uint8_t>(value < 10 ? '0' + value : 'a' + value - 10);
    add_edge(state, at, at, target);
    if (value >= 10) {
      const auto upper = static_cast<uint8_t>('A' + value - 10);
      add_edge(state, upper, upper, target);
    }
  }

  void raw(TextForm form) {
    for (uint32_t byte = form == TextForm::kJson ? 0x20 : 0; byte < 0x80; ++byte) {
      if (form == TextForm::kJson && (byte == '"' || byte == '\\')) continue;
      const auto target = complete(*uniform(byte, 1, 0), true);
      if (target) add_edge(boundary_, static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), *target);
    }
    static constexpr std::array<Digit, 3> kContinuations = {
        {{Digit::Kind::kContinuation}, {Digit::Kind::kContinuation}, {Digit::Kind::kContinuation}}};
    for (uint32_t lead = 0xC2; lead <= 0xF4; ++lead) {
      const size_t more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
      const char32_t value = lead & (more == 1 ? 0x1F : more == 2 ? 0x0F : 0x07);
      const char32_t least = more == 1 ? 0x80 : more == 2 ? 0x800 : 0x10000;
      const auto target =
          tree(static_cast<int>(more), Digits(kContinuations).first(more), value << (6 * more), least, true);
      if (!status_) return;
      if (target) add_edge(boundary_, static_cast<uint8_t>(lead), static_cast<uint8_t>(lead), *target);
    }
  }

  void escapes() {
    const uint32_t backslash = new_state();
    if (!status_) return;
    constexpr std::pair<char, char> kShort[] = {{'"', '"'},  {'/', '/'},  {'\\', '\\'}, {'b', '\b'},
                                                {'f', '\f'}, {'n', '\n'}, {'r', '\r'},  {'t', '\t'}};
    for (const auto& [letter, character] : kShort) {
      const auto target = complete(*uniform(static_cast<char32_t>(character), 1, 0), false);
      if (target) add_edge(backslash, static_cast<uint8_t>(letter), static_cast<uint8_t>(letter), *target);
    }
    static constexpr std::array<Digit, 4> kUnit = {
        {{Digit::Kind::kHex}, {Digit::Kind::kHex}, {Digit::Kind::kHex}, {Digit::Kind::kHex}}};
    static constexpr std::array<Digit, 6> kPair = {{{Digit::Kind::kHexHigh, "d"},
                                                    {Digit::Kind::kHex},
                                                    {Digit::Kind::kHex},
                                                    {Digit::Kind::kHexLow, "\\ud"},
                                                    {Digit::Kind::kHex},
                                                    {Digit::Kind::kHex}}};
    const auto unit = tree(4, kUnit, 0, 0, false);
    const auto pair = tree(5, kPair, 0x10000, 0x10000, false);
    if (!status_ || (!unit && !pair)) return;
    uint32_t digits = unit ? unit->state : new_state();
    if (!status_) return;
    if (pair) join_pair(digits, pair->state);
    add_edge(backslash, 'u', 'u', {digits, kUnlimited});
    add_edge(boundary_, '\\', '\\', {backslash, kUnlimited});
  }

  // \ud8.. to \udb.. begin a pair: its digits after the d join those of \ud0.. to \ud7.. Both may write d as D.
  void join_pair(uint32_t unit, uint32_t pair) {
    const uint32_t high = decoder_.states_[pair].edges[0].next;
    const uint32_t joined = new_state();
    if (!status_) return;
    auto& states = decoder_.states_;
    for (const auto& edge : states[unit].edges) {
      if (edge.first <= 'd' && 'd' <= edge.last) states[joined].edges = states[edge.next].edges;
    }
    for (const auto& edge : states[high].edges) states[joined].edges.push_back(edge);
    // The second d, in the low half.
    std::vector<TextDecoder::Edge> edges;
    for (const auto& edge : states[unit].edges) {
      for (uint32_t byte = edge.first; byte <= edge.last; ++byte) {
        if (byte == 'd' || byte == 'D') continue;
        edges.push_back({static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), edge.next, edge.character_class});
      }
    }
    edges.push_back({'D', 'D', joined, kUnlimited});
    edges.push_back({'d', 'd', joined, kUnlimited});
    states[unit].edges = std::move(edges);
  }

  void find_reachable() {
    auto& states = decoder_.states_;
    for (auto& state : states) {
      state.reachable.assign(words_, 0);
      for (const auto& edge : state.edges) {
        if (edge.character_class != kUnlimited) {
          state.reachable[edge.character_class / 64] |= uint64_t{1} << (edge.character_class % 64);
        }
      }
    }
    // A character is at most 12 bytes long.
    for (int round = 0; round < 12; ++round) {
      for (auto& state : states) {
        for (const auto& edge : state.edges) {
          if (edge.character_class != kUnlimited) continue;
          for (size_t w = 0; w < words_; ++w) state.reachable[w] |= states[edge.next].reachable[w];
        }
      }
    }
  }

  const std::u32string_view never_raw_;
  const size_t words_;
  std::vector<char32_t> starts_;
  std::vector<Label> labels_;
  TextDecoder decoder_;
  uint32_t boundary_ = 0;
  std::map<std::tuple<int, size_t, Label>, std::optional<Target>> memo_;
  Status status_;
};

Result<TextDecoder> TextDecoder::make(const CharacterClasses& classes, TextForm form, std::u32string_view never_raw) {
  return DecoderBuilder(classes, never_raw).build(form);
}

}  // namespace fathom
