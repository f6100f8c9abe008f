#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <regex>
#include <set>

#include "tasks/mix.h"
#include "tasks/support.h"
#include "text/bpe_trainer.h"

namespace fathom::test {
namespace {

constexpr const char* kLookups[] = {"lookup", "lookup-multi-key", "lookup-multi-value"};

// As small models have it.
const Tokenizer& tokenizer() {
  static const std::unique_ptr<Tokenizer> made = [] {
    auto trainer = value(BpeTrainer::create({.vocab_size = 1024, .single_digits = true}));
    const TaskMix mix = value(TaskMix::create({}));
    for (uint64_t i = 0; i < 600; ++i) {
      if (const Status added = trainer.add(value(mix.example(i)).prompt); !added) throw std::runtime_error("add");
    }
    return value(Tokenizer::parse(tokenizer_json(trainer.train()), "trained"));
  }();
  return *made;
}

size_t occurrences(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++count;
  return count;
}

std::string key_of(const Question& q) { return q.problem.substr(std::string("look up ").size()); }

// The message without the question, which stands before or after it.
std::string document_of(const Question& q) {
  const std::string& text = text_of(q);
  const size_t gap = text.find("\n\n");
  const std::string head = text.substr(0, gap), tail = text.substr(gap + 2);
  return head.size() > tail.size() ? head : tail;
}

TEST(Lookup, LengthsAreWhatWasAskedFor) {
  for (const char* task : kLookups) {
    for (const int64_t length : {100, 120, 150, 300, 1000, 5000, 20'000}) {
      const auto wanted = static_cast<double>(length);
      for (uint64_t seed = 0; seed < (length > 1000 ? 4u : 120u); ++seed) {
        const Question bytes = question(task, seed, Split::kTrain, {.length = length});
        EXPECT_NEAR(static_cast<double>(text_of(bytes).size()), wanted, 0.05 * wanted) << task << " " << seed;
        EXPECT_EQ(bytes.length, length);
        const Question q = question(task, seed, Split::kTrain, {.length = length, .tokenizer = &tokenizer()});
        const auto tokens = static_cast<double>(value(tokenizer().encode(text_of(q))).size());
        EXPECT_NEAR(tokens, wanted, 0.05 * wanted) << task << " " << seed;
      }
    }
  }
}

TEST(Lookup, AHundredThousandTokens) {
  const Question q =
      question("lookup-multi-key", 3, Split::kHeldOut, {.length = 100'000, .depth = 0.25, .tokenizer = &tokenizer()});
  EXPECT_NEAR(static_cast<double>(value(tokenizer().encode(text_of(q))).size()), 100'000, 5'000);
  EXPECT_EQ(occurrences(document_of(q), key_of(q)), 1u);
  EXPECT_TRUE(grade(q, q.answer, {}).correct);
}

TEST(Lookup, DrawnLengthsCoverTheRange) {
  int short_ones = 0, long_ones = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question("lookup", seed, Split::kTrain, {.max_length = 3000});
    ASSERT_GE(q.length, 100);
    ASSERT_LE(q.length, 3000);
    short_ones += q.length < 400 ? 1 : 0;
    long_ones += q.length >= 1600 ? 1 : 0;
  }
  EXPECT_GT(short_ones, 100);
  EXPECT_GT(long_ones, 50);
}

TEST(Lookup, TheDepthIsHonoured) {
  for (const char* task : kLookups) {
    for (const double depth : {0.0, 0.1, 0.5, 0.9, 1.0}) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        const Question q = question(task, seed, Split::kTrain, {.length = 12'000, .depth = depth});
        EXPECT_EQ(q.depth, depth);
        const std::string document = document_of(q);
        const double at = static_cast<double>(document.find(key_of(q))) / static_cast<double>(document.size());
        EXPECT_NEAR(at, depth, 0.07) << task << " " << seed;
      }
    }
  }
}

TEST(Lookup, TheKeyIsUniqueAndTheFactsAreThere) {
  for (const char* task : kLookups) {
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Question q = question(task, seed, seed % 2 == 0 ? Split::kTrain : Split::kHeldOut, {.max_length = 4000});
      const std::string document = document_of(q);
      ASSERT_EQ(occurrences(document, key_of(q)), q.expected.values.size()) << text_of(q);
      for (const std::string& wanted : q.expected.values) {
        ASSERT_EQ(occurrences(document, wanted), 1u) << wanted << " in " << document;
      }
      // Quoted word for word, in the order of the text.
      size_t from = 0;
      for (size_t at = 0; (at = q.reasoning.find('"', at)) != std::string::npos;) {
        const size_t end = q.reasoning.find('"', at + 1);
        const std::string sentence = q.reasoning.substr(at + 1, end - at - 1);
        from = document.find(sentence, from);
        ASSERT_NE(from, std::string::npos) << sentence;
        at = end + 1;
      }
    }
  }
}

TEST(Lookup, MultiKeyHasOthersOfTheSameKind) {
  static const std::regex kQuestion("The (.*) of (.*) is (.*)\\.");
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const Question q = question("lookup-multi-key", seed, Split::kTrain, {.length = 3000});
    std::smatch m;
    ASSERT_TRUE(std::regex_match(q.answer, m, kQuestion));
    EXPECT_GE(occurrences(document_of(q), m[1].str() + " of "), 10u) << text_of(q);
    const Question one = question("lookup", seed, Split::kTrain, {.length = 3000});
    ASSERT_TRUE(std::regex_match(one.answer, m, kQuestion));
    EXPECT_EQ(occurrences(document_of(one), m[1].str() + " of "), 1u) << text_of(one);
  }
}

TEST(Lookup, SeveralAreAskedAboutOneText) {
  static const std::regex kAnswer("The (.*) of (.*) is (.*)\\.");
  for (const int64_t length : {100, 200, 500, 2000, 20'000}) {
    size_t answers = 0;
    for (uint64_t seed = 0; seed < (length > 1000 ? 4u : 100u); ++seed) {
      const Question q = question("lookup-several", seed, seed % 2 == 0 ? Split::kTrain : Split::kHeldOut,
                                  {.length = length, .depth = 0.5});
      const std::string& first = q.messages[0].content;
      const std::string document = first.substr(0, first.rfind("\n\n"));
      size_t bytes = 0;
      std::set<std::string> keys;
      std::vector<std::string> given;
      for (size_t i = 0; i < q.messages.size(); ++i) {
        ASSERT_EQ(q.messages[i].role, i % 2 == 0 ? Role::kUser : Role::kAssistant);
        bytes += q.messages[i].content.size() + 2;
        if (i % 2 == 1) given.push_back(q.messages[i].content);
      }
      EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(length), 0.06 * static_cast<double>(length)) << seed;
      given.push_back(q.answer);
      for (size_t i = 0; i < given.size(); ++i) {
        std::smatch m;
        ASSERT_TRUE(std::regex_match(given[i], m, kAnswer)) << given[i];
        EXPECT_EQ(occurrences(document, fmt::format("{} of {} is {}.", m[1].str(), m[2].str(), m[3].str())), 1u)
            << first;
        EXPECT_EQ(occurrences(q.messages[2 * i].content, m[2].str()), i == 0 ? 2u : 1u) << "its own question's key";
        EXPECT_TRUE(keys.insert(m[2]).second) << "asked twice";
        EXPECT_EQ(split_of("look up " + m[2].str()), seed % 2 == 0 ? Split::kTrain : Split::kHeldOut);
      }
      answers += given.size();
      if (length > 10'000) {  // in shorter ones the other facts, which stand anywhere, are most of the text
        const double at = static_cast<double>(document.find(key_of(q))) / static_cast<double>(document.size());
        EXPECT_NEAR(at, 0.5, 0.07) << seed;
      }
    }
    const size_t texts = length > 1000 ? 4 : 100;
    EXPECT_GE(answers, texts * std::clamp<size_t>(static_cast<size_t>(length) / 150, 1, 64)) << length;
  }
}

// Not only what is asked for: no key of a held-out text was ever in a text to train on.
TEST(Lookup, EveryKeyBelongsToTheSplit) {
  static const std::regex kFact("the [a-z ]+ of ((?:crate )?[A-Z][A-Za-z-]*(?: [A-Z][a-z]+|[0-9]+)?) is ",
                                std::regex::icase);
  int facts = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    for (const Split split : {Split::kTrain, Split::kHeldOut}) {
      const std::string document = document_of(question("lookup-multi-key", seed, split, {.length = 2000}));
      for (auto m = std::sregex_iterator(document.begin(), document.end(), kFact); m != std::sregex_iterator(); ++m) {
        EXPECT_EQ(split_of("look up " + (*m)[1].str()), split) << m->str();
        ++facts;
      }
    }
  }
  EXPECT_GT(facts, 500);
}

}  // namespace
}  // namespace fathom::test
