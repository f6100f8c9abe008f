#include "text/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <system_error>

#include "base/file.h"
#include "text/bpe_merges.h"
#include "text/byte_level.h"
#include "text/chat_tokens.h"
#include "text/json.h"
#include "text/utf8.h"

namespace fathom {

using namespace chat_tokens;

namespace {

constexpr size_t kMaxPieceBytes = 256;
constexpr int32_t kMaxVocab = 1 << 20;  // as Tokenizer accepts
constexpr size_t kPieceOverhead = 64;   // of an entry of the map of counts, about

struct AddedToken {
  std::string_view text;
  bool special;
};
// In the published order. The published file has 800 placeholders besides, which name nothing.
constexpr std::array<AddedToken, 3> kFirst = {
    {{kBeginOfSentence, true}, {kEndOfSentence, true}, {"<｜▁pad▁｜>", true}}};
constexpr std::array<AddedToken, 19> kLast = {{
    {"<｜search▁begin｜>", false},
    {"<｜search▁end｜>", false},
    {kThink, false},
    {kEndThink, false},
    {"<｜fim▁hole｜>", false},
    {"<｜fim▁begin｜>", false},
    {"<｜fim▁end｜>", false},
    {kUser, false},
    {kAssistant, false},
    {"<|EOT|>", true},
    {kToolCallsBegin, false},
    {kToolCallsEnd, false},
    {kToolCallBegin, false},
    {kToolCallEnd, false},
    {"<｜tool▁outputs▁begin｜>", false},
    {"<｜tool▁outputs▁end｜>", false},
    {kToolOutputBegin, false},
    {kToolOutputEnd, false},
    {kToolSep, false},
}};

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string byte_level(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) append_utf8(text, byte_to_char(static_cast<uint8_t>(byte)));
  return text;
}

Json added_entry(const AddedToken& token, size_t id, bool normalized) {
  return {{"id", id},        {"content", token.text},    {"single_word", false},    {"lstrip", false},
          {"rstrip", false}, {"normalized", normalized}, {"special", token.special}};
}

Json pre_tokenizer_json() {
  Json steps = Json::array();
  for (const std::string_view pattern : published_patterns()) {
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

// Appended without a search for an equal key, which would make it quadratic: there is none.
class VocabWriter {
 public:
  void add(std::string_view text) {
    static_cast<std::vector<std::pair<const std::string, Json>>&>(object_).emplace_back(std::string(text), next_++);
  }
  size_t next() const { return next_; }
  Json take() { return Json(std::move(object_)); }

 private:
  Json::object_t object_;
  size_t next_ = 0;
};

}  // namespace

int32_t smallest_vocab_size() { return static_cast<int32_t>(256 + kFirst.size() + kLast.size()); }

int32_t TrainedBpe::vocab_size() const { return smallest_vocab_size() + static_cast<int32_t>(merges.size()); }

Result<BpeTrainer> BpeTrainer::create(const BpeTrainerOptions& options) {
  if (options.vocab_size < smallest_vocab_size() || options.vocab_size > kMaxVocab) {
    return fail("vocabulary of {} tokens: expected {} (256 bytes and the special tokens) to {}", options.vocab_size,
                smallest_vocab_size(), kMaxVocab);
  }
  const auto patterns = published_patterns();
  FATHOM_TRY(PreTokenizer pre_tokenizer,
             PreTokenizer::create({patterns.begin(), patterns.end()}, "tokenizer training"));
  return BpeTrainer(options, std::move(pre_tokenizer));
}

BpeTrainer::BpeTrainer(const BpeTrainerOptions& options, PreTokenizer pre_tokenizer)
    : options_(options), pre_tokenizer_(std::move(pre_tokenizer)) {
  int32_t id = 0;
  for (const AddedToken& token : kFirst) added_.add(token.text, id++);
  for (const AddedToken& token : kLast) added_.add(token.text, id++);
}

Status BpeTrainer::add(std::string_view text) {
  FATHOM_TRY(const auto run, pre_tokenizer_.begin(text.size()));
  bytes_ += text.size();
  for (size_t done = 0; done < text.size();) {
    const AddedTokens::Match match = added_.find(text, done);
    FATHOM_RETURN_IF_ERROR(add_plain(text.substr(done, match.begin - done), *run));
    done = match.begin + match.size;
  }
  return {};
}

Status BpeTrainer::add_plain(std::string_view text, PreTokenizer::Run& run) {
  while (!text.empty()) {
    const size_t valid = utf8_valid_prefix(text);
    if (valid > 0) {
      FATHOM_RETURN_IF_ERROR(
          pre_tokenizer_.split(text.substr(0, valid), run, [&](std::string_view piece) { count_piece(piece); }));
      text.remove_prefix(valid);
    }
    while (!text.empty()) {
      const Utf8Step step = utf8_step(text);
      if (step.kind == Utf8Kind::kValid) break;
      text.remove_prefix(step.size);
    }
  }
  return {};
}

void BpeTrainer::count_piece(std::string_view piece) {
  if (!options_.single_digits) return count(piece);
  while (!piece.empty()) {
    const size_t size = static_cast<size_t>(std::ranges::find_if(piece, is_digit) - piece.begin());
    count(piece.substr(0, size));
    piece.remove_prefix(std::min(size + 1, piece.size()));
  }
}

void BpeTrainer::count(std::string_view piece) {
  if (piece.size() < 2 || piece.size() > kMaxPieceBytes) return;  // one byte has no pair
  const auto found = counts_.find(piece);
  if (found != counts_.end()) {
    ++found->second;
    return;
  }
  counts_.emplace(piece, 1);
  memory_ += piece.size() + kPieceOverhead;
  if (memory_ > options_.memory_bytes) forget_rarest();
}

void BpeTrainer::forget_rarest() {
  while (memory_ > options_.memory_bytes / 2 && !counts_.empty()) {
    ++forgotten_;
    std::erase_if(counts_, [&](const auto& entry) {
      if (entry.second > forgotten_) return false;
      memory_ -= entry.first.size() + kPieceOverhead;
      return true;
    });
  }
}

TrainedBpe BpeTrainer::train() const {
  const std::vector<std::pair<std::string_view, int64_t>> pieces(counts_.begin(), counts_.end());
  const auto merges = static_cast<size_t>(options_.vocab_size - smallest_vocab_size());
  return {learn_merges(pieces, merges, options_.min_count)};
}

std::string tokenizer_json(const TrainedBpe& trained) {
  VocabWriter vocab;
  Json added = Json::array(), merges = Json::array();
  for (const AddedToken& token : kFirst) {
    added.push_back(added_entry(token, vocab.next(), false));
    vocab.add(token.text);
  }
  for (int byte = 0; byte < 256; ++byte) vocab.add(byte_level(std::string(1, static_cast<char>(byte))));
  for (const auto& [left, right] : trained.merges) {
    vocab.add(byte_level(left + right));
    merges.push_back(byte_level(left) + " " + byte_level(right));
  }
  for (size_t i = 0; i < kLast.size(); ++i) {  // as published, these are no members of model.vocab
    added.push_back(added_entry(kLast[i], vocab.next() + i, true));
  }
  const Json json = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", std::move(added)},
      {"normalizer", {{"type", "Sequence"}, {"normalizers", Json::array()}}},
      {"pre_tokenizer", pre_tokenizer_json()},
      {"post_processor",
       {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocab.take()},
        {"merges", std::move(merges)}}},
  };
  return json.dump(1) + "\n";
}

Status write_tokenizer(const std::filesystem::path& folder, const TrainedBpe& trained, int64_t context) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail("{}: cannot make the folder: {}", folder.string(), error.message());
  const Json config = {{"tokenizer_class", "LlamaTokenizerFast"},
                       {"bos_token", kBeginOfSentence},
                       {"eos_token", kEndOfSentence},
                       {"pad_token", kEndOfSentence},
                       {"add_bos_token", false},
                       {"add_eos_token", false},
                       {"model_max_length", context}};
  FATHOM_RETURN_IF_ERROR(write_file_atomically(folder / "tokenizer.json", tokenizer_json(trained)));
  return write_file_atomically(folder / "tokenizer_config.json", config.dump(1) + "\n");
}

}  // namespace fathom
