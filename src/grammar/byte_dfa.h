// Deterministic automata over bytes: literal texts, white space, numbers, text up to a mark.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

inline constexpr uint32_t kUnlimited = std::numeric_limits<uint32_t>::max();

// Text that may follow for sure: any up to `characters` of these, in any order. It lets whole branches of the
// vocabulary be allowed without a look at their tokens.
struct TextRun {
  enum class High : uint8_t { kNone, kUtf8, kAny };  // beyond ASCII: nothing, whole characters, any bytes
  std::array<uint64_t, 2> ascii{};
  High high = High::kNone;
  uint32_t characters = 0;

  void add(uint8_t byte) { ascii[byte >> 6] |= uint64_t{1} << (byte & 63); }
  bool has(uint8_t byte) const { return byte < 0x80 && (ascii[byte >> 6] >> (byte & 63) & 1) != 0; }
  bool operator==(const TextRun&) const = default;
};

// State 0 is the start. Every state can reach one that accepts (trim sees to it).
struct ByteDfa {
  static constexpr uint32_t kNone = kUnlimited;
  struct Edge {
    uint8_t first, last;
    bool mark;  // an added token's bytes may pass here too
    uint32_t next;
  };
  struct State {
    std::vector<Edge> edges;  // no two share a byte, but for one that is a mark and one that is not
    bool accepts = false;
  };
  std::vector<State> states;

  // kNone: the byte cannot come.
  uint32_t next(uint32_t state, uint8_t byte, bool mark) const;
  // What loops at a state.
  TextRun run(uint32_t state) const;
  bool accepts(std::string_view text) const;
  // Drops the states that lead to no acceptance; the start stays.
  void trim();
};

// One of `texts`, which need not differ.
ByteDfa literal_dfa(std::span<const std::string> texts, bool mark = false);
ByteDfa white_space_dfa();  // see kMaxIndent
// Bytes of `set` (ASCII), 1 to most of them.
ByteDfa name_dfa(std::string_view excluded, uint32_t most);
// Any bytes in which `mark` does not occur; or, with the mark, any bytes that end where it first occurs.
ByteDfa text_without_dfa(std::string_view mark);
ByteDfa text_up_to_dfa(std::string_view mark);

}  // namespace fathom
