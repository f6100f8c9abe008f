// Counting: each thing named, with how many there are so far.
#include <fmt/ranges.h>

#include <algorithm>

#include "tasks/draw.h"
#include "tasks/words.h"

namespace fathom {

namespace {

constexpr std::string_view kLetters[] = {"How many {0} are in {1}?",     "How many times is {0} in the word {1}?",
                                         "Count the letter {0} in {1}.", "How often does {1} have the letter {0}?",
                                         "Count {0} in \"{1}\".",        "How many letters {0} does {1} have?"};
constexpr std::string_view kItems[] = {
    "How many items are in this list: {0}?", "Count the items: {0}", "{0}. How many are these?",
    "How many things are these: {0}?",       "Count these: {0}.",    "What is the number of items in {0}?"};
constexpr std::string_view kWords[] = {"How many words are in \"{0}\"?", "Count the words: {0}",
                                       "How many words has this sentence: {0}", "Count the words in \"{0}\".",
                                       "What is the number of words in \"{0}\"?"};

Question counted(Question question, std::string_view what, const std::vector<std::string>& steps, int64_t count) {
  question.reasoning += fmt::format("{}\nSo {}.", fmt::join(steps, ", "), count);
  question.answer = fmt::format("The number of {} is {}.", what, count);
  question.expected = number_expected(count);
  return question;
}

std::vector<std::string> numbered(const std::vector<std::string>& things) {
  std::vector<std::string> steps;
  for (const std::string& thing : things) steps.push_back(fmt::format("{} {}", thing, steps.size() + 1));
  return steps;
}

struct Letters {
  std::string word;
  char letter;
  std::string problem;
};

struct Things {
  std::vector<std::string> list;
  std::string problem;
};

}  // namespace

Question draw_count_letters(Draw& draw) {
  const Letters letters = draw.fitting([&] {
    std::string word = any_word(draw.random);
    // Mostly one that is there.
    const bool any = draw.random.chance(15);
    const char letter = any ? static_cast<char>('a' + draw.random.below(26)) : draw.random.pick(word);
    std::string problem = fmt::format("{} in {}", letter, word);
    return Letters{std::move(word), letter, std::move(problem)};
  });
  const std::string letter(1, letters.letter);
  Question question = asked(letters.problem, draw.phrase(kLetters, letter, letters.word));
  question.reasoning = fmt::format("{} in {}\n{}\n", letter, letters.word, spelled(letters.word));
  std::vector<std::string> steps;
  int64_t count = 0;
  for (const char c : letters.word) {
    if (c == letters.letter) ++count;
    steps.push_back(fmt::format("{} {}", c, count));
  }
  return counted(std::move(question), letter + " in " + letters.word, steps, count);
}

Question draw_count_items(Draw& draw) {
  const Things items = draw.fitting([&] {
    Things drawn;
    const auto count = static_cast<size_t>(draw.random.between(2, 10));
    while (drawn.list.size() < count) {
      std::string item(draw.random.pick(common_nouns()));
      if (!std::ranges::count(drawn.list, item)) drawn.list.push_back(std::move(item));
    }
    drawn.problem = fmt::format("{}", fmt::join(drawn.list, ", "));
    return drawn;
  });
  return counted(asked(items.problem, draw.phrase(kItems, items.problem)), "items", numbered(items.list),
                 static_cast<int64_t>(items.list.size()));
}

Question draw_count_words(Draw& draw) {
  const Things words = draw.fitting([&] {
    Things drawn;
    const int64_t count = draw.random.between(2, 10);
    for (int64_t i = 0; i < count; ++i) {
      drawn.list.emplace_back(draw.random.chance(35) ? draw.random.pick(adjectives())
                                                     : draw.random.pick(common_nouns()));
    }
    drawn.problem = fmt::format("{}", fmt::join(drawn.list, " "));
    return drawn;
  });
  return counted(asked(words.problem, draw.phrase(kWords, words.problem)), "words", numbered(words.list),
                 static_cast<int64_t>(words.list.size()));
}

}  // namespace fathom
