#include "text/bpe_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <stdexcept>

#include "base/file.h"
#include "support/temp_dir.h"
#include "support/value.h"
#include "text/json.h"
#include "text/tokenizer.h"

namespace fathom {
namespace {

using testing::HasSubstr;

constexpr const char* kText =
    "The cat sat on the mat. The cat said: that is the mat, not the hat! 12 cats, 123 mats and 1234 hats sat there. "
    "Zwölf Katzen saßen dort; 猫が十二匹いました。 <think>the thin thing</think>\n\n"
    "aaaa aaaaaa aaa aa abababab banana bananas\n";

BpeTrainer trained_on(std::string_view text, const BpeTrainerOptions& options) {
  BpeTrainer trainer = value(BpeTrainer::create(options));
  if (const Status added = trainer.add(text); !added) throw std::runtime_error(added.error().message);
  return trainer;
}

std::unique_ptr<Tokenizer> loaded(const TrainedBpe& trained) {
  return value(Tokenizer::parse(tokenizer_json(trained), "trained"));
}

// The pieces of a text by the definition: a tokenizer without merges cuts special tokens out, the patterns the rest.
std::vector<std::string> pieces(std::string_view text) {
  const auto patterns = published_patterns();
  const auto cutter = value(PreTokenizer::create({patterns.begin(), patterns.end()}, "test"));
  const auto run = value(cutter.begin(text.size()));
  const auto bytes = loaded({});
  std::vector<std::string> out;
  std::string plain;
  const auto flush = [&] {
    const Status status = cutter.split(plain, *run, [&](std::string_view piece) { out.emplace_back(piece); });
    EXPECT_TRUE(status);
    plain.clear();
  };
  const std::vector<int32_t> ids = value(bytes->encode(text));
  for (const int32_t id : ids) {
    if (bytes->is_added(id))
      flush();
    else
      plain += bytes->token_bytes(id);
  }
  flush();
  return out;
}

// The definition, everything counted anew for each merge.
std::vector<TrainedBpe::Merge> reference(std::string_view text, size_t count, int64_t min_count, bool single_digits) {
  std::vector<std::vector<std::string>> words;
  for (const std::string& piece : pieces(text)) {
    words.emplace_back();
    for (const char byte : piece) words.back().emplace_back(1, byte);
  }
  std::vector<TrainedBpe::Merge> merges;
  while (merges.size() < count) {
    std::map<std::pair<std::string, std::string>, int64_t> counts;  // in the order of the bytes
    for (const auto& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    const std::pair<std::string, std::string>* best = nullptr;
    int64_t most = min_count - 1;
    for (const auto& [pair, n] : counts) {
      const std::string both = pair.first + pair.second;
      const bool digit = both.find_first_of("0123456789") != std::string::npos;
      if (n > most && !(digit && single_digits)) best = &pair, most = n;
    }
    if (best == nullptr) break;
    const auto [left, right] = *best;
    merges.push_back({left, right});
    for (auto& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != left || word[i + 1] != right) continue;
        word[i] += right;
        word.erase(word.begin() + static_cast<ptrdiff_t>(i) + 1);
      }
    }
  }
  return merges;
}

TEST(BpeTrainer, MergesAreThoseOfTheDefinition) {
  for (const bool single_digits : {false, true}) {
    for (const int64_t min_count : {1, 2, 3}) {
      const BpeTrainerOptions options{
          .vocab_size = smallest_vocab_size() + 200, .single_digits = single_digits, .min_count = min_count};
      const auto merges = trained_on(kText, options).train().merges;
      EXPECT_EQ(merges, reference(kText, 200, min_count, single_digits)) << single_digits << " " << min_count;
      EXPECT_GT(merges.size(), 10u);
    }
  }
}

TEST(BpeTrainer, RandomTextsAreMergedAsDefined) {
  std::mt19937 random(11);
  for (int round = 0; round < 30; ++round) {
    std::string text;
    for (int i = 0; i < 400; ++i) text += "abc  1"[random() % (round % 2 == 0 ? 4 : 6)];
    const auto merges = trained_on(text, {.vocab_size = smallest_vocab_size() + 60}).train().merges;
    ASSERT_EQ(merges, reference(text, 60, 2, false)) << text;
    std::set<std::string> tokens;
    for (const auto& [left, right] : merges) ASSERT_TRUE(tokens.insert(left + right).second) << left << "|" << right;
  }
}

TEST(BpeTrainer, OfEqualPairsTheFirstInByteOrder) {
  const auto merges =
      trained_on("zy zy yx yx", {.vocab_size = smallest_vocab_size() + 3, .min_count = 2}).train().merges;
  // Twice each: " y", "yx", "zy"; then " yx" and "zy".
  ASSERT_EQ(merges.size(), 3u);
  EXPECT_EQ(merges[0], (TrainedBpe::Merge{" ", "y"}));
  EXPECT_EQ(merges[1], (TrainedBpe::Merge{" y", "x"}));
  EXPECT_EQ(merges[2], (TrainedBpe::Merge{"z", "y"}));
}

TEST(BpeTrainer, TheOrderOfTextsDoesNotMatter) {
  const BpeTrainerOptions options{.vocab_size = 400};
  auto forward = value(BpeTrainer::create(options)), backward = value(BpeTrainer::create(options));
  const std::vector<std::string> texts = {kText, "more of the same, the cat", "12345 the mats are there", "そして猫"};
  for (size_t i = 0; i < texts.size(); ++i) {
    ASSERT_TRUE(forward.add(texts[i]));
    ASSERT_TRUE(backward.add(texts[texts.size() - 1 - i]));
  }
  EXPECT_EQ(forward.train().merges, backward.train().merges);
  EXPECT_EQ(forward.bytes(), backward.bytes());
}

TEST(BpeTrainer, WhatIsTrainedIsLoadedAndAnyBytesComeBack) {
  const TrainedBpe trained = trained_on(kText, {.vocab_size = 350, .min_count = 1}).train();
  const auto tokenizer = loaded(trained);
  EXPECT_EQ(tokenizer->vocab_size(), trained.vocab_size());
  EXPECT_EQ(tokenizer->vocab_size(), 350);
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::string text = kText;
    for (int i = 0; i < 20; ++i) text[random() % text.size()] = static_cast<char>(random());
    const auto ids = value(tokenizer->encode(text));
    ASSERT_LT(ids.size(), text.size());
    ASSERT_EQ(tokenizer->decode(ids), text);
  }
  for (const auto& [left, right] : trained.merges) {
    const auto id = tokenizer->id_of(left + right);
    ASSERT_TRUE(id) << left << right;
    EXPECT_EQ(tokenizer->token_bytes(*id), left + right);
  }
}

TEST(BpeTrainer, SingleDigitsStaySingle) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "2024 and 2025, 100 times 100\n";
  const auto joined = loaded(trained_on(text, {.vocab_size = 320}).train());
  EXPECT_EQ(value(joined->encode("100")).size(), 1u);
  const auto single = loaded(trained_on(text, {.vocab_size = 320, .single_digits = true}).train());
  EXPECT_EQ(value(single->encode("100")).size(), 3u);
  EXPECT_EQ(value(single->encode(" and")).size(), 1u);
}

TEST(BpeTrainer, SpecialTokensAreThePublishedOnes) {
  const auto published = value(Tokenizer::load(FATHOM_TEST_BINARY_DATA "/tokenizer"));
  const auto tokenizer = loaded(trained_on("<think><｜User｜><think><｜User｜>", {}).train());
  EXPECT_EQ(tokenizer->vocab_size(), smallest_vocab_size()) << "nothing of a special token is merged";
  int named = 0;
  for (int32_t id = 0; id < published->vocab_size(); ++id) {
    const std::string_view text = published->token_bytes(id);
    if (!published->is_added(id) || text.find("place▁holder") != std::string_view::npos) continue;
    ++named;
    const auto ours = tokenizer->id_of(text);
    ASSERT_TRUE(ours) << text;
    EXPECT_TRUE(tokenizer->is_added(*ours)) << text;
    EXPECT_EQ(tokenizer->is_special(*ours), published->is_special(id)) << text;
  }
  EXPECT_EQ(named, smallest_vocab_size() - 256);
}

TEST(BpeTrainer, TheRestOfTheFileIsAsPublished) {
  auto published = value(parse_json(value(read_file(FATHOM_TEST_DATA "/tokenizer/bytes.json")), "bytes.json"));
  auto ours = value(parse_json(tokenizer_json({}), "trained"));
  for (Json* json : {&published, &ours}) {
    json->erase("added_tokens");
    (*json)["model"].erase("vocab");
  }
  EXPECT_EQ(ours, published);
}

TEST(BpeTrainer, WithinItsMemoryTheFrequentStays) {
  BpeTrainer trainer = value(BpeTrainer::create({.vocab_size = smallest_vocab_size() + 8, .memory_bytes = 20'000}));
  std::mt19937 random(3);
  for (int i = 0; i < 5000; ++i) {
    std::string rare = " ";
    for (int k = 0; k < 8; ++k) rare += static_cast<char>('a' + random() % 20);
    ASSERT_TRUE(trainer.add(" xyzzy xyzzy" + rare));
  }
  const auto tokenizer = loaded(trainer.train());
  EXPECT_EQ(value(tokenizer->encode(" xyzzy")).size(), 1u);
}

TEST(BpeTrainer, RefusesAVocabularyThatCannotBe) {
  const auto small = BpeTrainer::create({.vocab_size = smallest_vocab_size() - 1});
  ASSERT_FALSE(small);
  EXPECT_THAT(small.error().message, HasSubstr(std::to_string(smallest_vocab_size())));
  EXPECT_FALSE(BpeTrainer::create({.vocab_size = (1 << 20) + 1}));
}

TEST(BpeTrainer, WritesAFolderThatLoads) {
  const TempDir dir;
  const TrainedBpe trained = trained_on(kText, {.vocab_size = 300}).train();
  ASSERT_TRUE(write_tokenizer(dir / "new" / "folder", trained, 32768));
  const auto tokenizer = value(Tokenizer::load(dir / "new" / "folder"));
  EXPECT_EQ(tokenizer->vocab_size(), 300);
  const auto config = value(parse_json(value(read_file(dir / "new" / "folder" / "tokenizer_config.json")), "config"));
  EXPECT_EQ(config["model_max_length"], 32768);
  EXPECT_TRUE(tokenizer->id_of(config["eos_token"].get<std::string>()));
  const Status under_a_file = write_tokenizer(dir / "new" / "folder" / "tokenizer.json" / "x", trained, 1);
  ASSERT_FALSE(under_a_file);
  EXPECT_THAT(under_a_file.error().message, HasSubstr("tokenizer.json"));
}

}  // namespace
}  // namespace fathom
