// What a grammar may cost: whoever asks for more gets a message that says which limit it was.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom::grammar_limits {

// Arrays and objects of a generated document within one another: as deep as JSON that comes in may be nested for tools.
inline constexpr uint32_t kMaxDepth = 64;
// Nodes of one grammar: a schema of OpenAI's largest size (5,000 properties) takes some 60,000.
inline constexpr size_t kMaxNodes = 150'000;
// Parts that begin one within another with no byte between, such as alternatives of alternatives: read one within another too.
inline constexpr uint32_t kMaxFirst = 1'000;
// States of all byte automata of one grammar (names, values of enum, numbers); some 40 bytes each.
inline constexpr size_t kMaxByteStates = 1'000'000;
// Properties of one object; in a row, each optional one is a case of its own at every place where it may come.
inline constexpr size_t kMaxProperties = 1'000;
// With minProperties or maxProperties, where every property counts for every other.
inline constexpr size_t kMaxCountedProperties = 128;
inline constexpr size_t kMaxPrefixItems = 256;
inline constexpr size_t kMaxEnumValues = 2'000;  // OpenAI accepts 1,000

// Regular expressions: bytes of the pattern, groups within one another, states before and after they are made
// deterministic, entries of a table of transitions (4 bytes each), and steps that may be taken for it, some 10 ns each.
inline constexpr size_t kMaxPatternBytes = 4'096;
inline constexpr int kMaxPatternGroups = 64;
inline constexpr size_t kMaxNfaStates = 50'000;
inline constexpr size_t kMaxTextStates = 20'000;
inline constexpr size_t kMaxTableEntries = 2'000'000;
inline constexpr size_t kMaxPatternWork = 10'000'000;
// All patterns of one schema together: steps, and entries of tables.
inline constexpr size_t kMaxSchemaWork = 40'000'000;
inline constexpr size_t kMaxDecoderStates = 100'000;

// Numbers. Without a range: digits before and after the point, and of the exponent, so that every number is finite as a
// double and none goes on for ever. With a range, decimals have no exponent and at most 15 digits, which a double tells
// apart, so that a reader's comparison of doubles agrees with ours of decimals.
inline constexpr uint32_t kMaxIntegerDigits = 20;
inline constexpr uint32_t kMaxFractionDigits = 20;
inline constexpr uint32_t kMaxExponentDigits = 2;
inline constexpr uint32_t kMaxRangedDigits = 15;
inline constexpr uint64_t kMaxMultipleOf = 1'000;
inline constexpr size_t kMaxNumberStates = 50'000;

// White space between the tokens of JSON: none, one space, or a line feed and up to this many spaces.
inline constexpr uint32_t kMaxIndent = 64;
// Calls in one answer: as many as there may be tools.
inline constexpr uint32_t kMaxToolCalls = 128;
inline constexpr uint32_t kMaxFreeNameCharacters = 64;  // of a parameter that no schema names

// Masks are cached for what comes within this many bytes; the few longer tokens (159 of 129,280 in the real
// vocabulary) are tried one by one. Counters beyond it (maxLength, maxItems) then share one mask.
inline constexpr uint32_t kHorizon = 24;
// Of one grammar, for one vocabulary: 4 MiB of transitions, and 8 MiB of masks at 129,280 tokens.
inline constexpr size_t kMaxWalkStates = 4'096;
inline constexpr size_t kMaxTails = 65'536;
// Of the answers under way, so that each is looked at once: some 200 bytes, which outlive their answers.
inline constexpr size_t kMaxClampedTails = 2'048;
inline constexpr size_t kMaxMasks = 512;

}  // namespace fathom::grammar_limits
