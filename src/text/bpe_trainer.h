// Learns a byte-level BPE from text, and writes it as the tokenizer.json that Tokenizer reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/added_tokens.h"
#include "text/pre_tokenizer.h"

namespace fathom {

struct BpeTrainerOptions {
  int32_t vocab_size = 4096;   // all ids: 256 bytes, merges, special tokens
  bool single_digits = false;  // no merge has a digit in it: small models compute digit by digit
  int64_t min_count = 2;       // a pair that stands less often is not merged
  // Distinct pieces are counted in about this much memory; past it, the rarest are forgotten.
  size_t memory_bytes = size_t{512} << 20;
};

// What was learned. Ids: 0, 1, 2 the special tokens that begin the published vocabulary, then the 256 bytes in order,
// then the merges in order of rank, then the published tokens of the chat format.
struct TrainedBpe {
  struct Merge {
    std::string left, right;  // bytes
    bool operator==(const Merge&) const = default;
  };
  std::vector<Merge> merges;
  int32_t vocab_size() const;
};

// The smallest vocab_size: no merges at all.
int32_t smallest_vocab_size();

class BpeTrainer {
 public:
  // Refuses a vocabulary below smallest_vocab_size() or above 2^20.
  static Result<BpeTrainer> create(const BpeTrainerOptions& options);

  // Counts the pieces of a text, as the tokenizer will cut it: special tokens and bytes that are no valid UTF-8 stand
  // apart. Pieces longer than 256 bytes are left out: they are no words.
  Status add(std::string_view text);
  // Bytes of all texts so far.
  uint64_t bytes() const { return bytes_; }

  // Merges the most frequent pair, of equals the one whose left bytes, then right bytes, come first; and so on until
  // the vocabulary is full or no pair is frequent enough. (How the bytes of a token were merged does not depend on what
  // stood around them, so no two merges make the same token.) The same texts, in any order, give the same merges while
  // none were forgotten.
  TrainedBpe train() const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Counts = std::unordered_map<std::string, int64_t, Hash, std::equal_to<>>;

  BpeTrainer(const BpeTrainerOptions& options, PreTokenizer pre_tokenizer);
  Status add_plain(std::string_view text, PreTokenizer::Run& run);
  void count_piece(std::string_view piece);
  void count(std::string_view piece);
  void forget_rarest();

  BpeTrainerOptions options_;
  PreTokenizer pre_tokenizer_;
  AddedTokens added_;
  Counts counts_;
  size_t memory_ = 0;      // of counts_, about
  int64_t forgotten_ = 0;  // pieces counted so often were dropped
  uint64_t bytes_ = 0;
};

// The text of tokenizer.json: normalizer, pre-tokenizer, decoder and the special tokens' names as published.
std::string tokenizer_json(const TrainedBpe& trained);

// tokenizer.json and tokenizer_config.json in `folder`, which is made when absent. Each replaces an older one whole.
// context: tokens, what the configuration calls model_max_length.
Status write_tokenizer(const std::filesystem::path& folder, const TrainedBpe& trained, int64_t context);

}  // namespace fathom
