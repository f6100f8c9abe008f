// Work on letters and words: each spelled out with its place, then put together.
#include <fmt/ranges.h>

#include <algorithm>

#include "tasks/draw.h"
#include "tasks/words.h"

namespace fathom {

namespace {

constexpr std::string_view kReverse[] = {"Reverse {0}.",           "Reverse the word {0}.", "Write {0} backwards.",
                                         "What is {0} backwards?", "Spell {0} in reverse.", "Turn \"{0}\" around."};
constexpr std::string_view kUpper[] = {"Write {0} in upper case.",      "Write {0} in capital letters.",
                                       "Make {0} upper case.",          "What is {0} in capitals?",
                                       "Turn \"{0}\" into upper case.", "Capitalize all letters of {0}."};
constexpr std::string_view kFirstOne[] = {"What is the {1} letter of {0}?", "Give me the {1} letter of {0}.",
                                          "Which letter is {1} in {0}?", "{1} letter of \"{0}\"?"};
constexpr std::string_view kFirstMany[] = {"What are the {1} {2} letters of {0}?",
                                           "Give me the {1} {2} letters of {0}.", "Write the {1} {2} letters of {0}.",
                                           "{1} {2} letters of \"{0}\"?"};
constexpr std::string_view kJoin[] = {"Join {0} and {1}.", "Join the words {0} and {1} into one.",
                                      "Put {0} and {1} together.", "Concatenate \"{0}\" and \"{1}\".",
                                      "What do you get when you write {1} right after {0}?"};
constexpr std::string_view kNth[] = {"What is word {1} of \"{0}\"?", "Which is word number {1}: {0}",
                                     "Give me word {1} of this: {0}", "In \"{0}\", what is word {1}?",
                                     "Words: {0}. Which one is number {1}?"};
constexpr std::string_view kRemove[] = {"Remove the letter {1} from {0}.", "Remove every {1} from {0}.",
                                        "Write {0} without {1}.", "Take all letters {1} out of {0}.",
                                        "What is left of {0} without the letter {1}?"};

struct Word {
  std::string word, problem;
};

Word draw_word(Draw& draw, std::string_view kind) {
  return draw.fitting([&] {
    std::string word = any_word(draw.random);
    std::string problem = fmt::format("{} {}", kind, word);
    return Word{std::move(word), std::move(problem)};
  });
}

Question answered(Question question, const std::string& value, std::string_view frame) {
  question.reasoning += fmt::format("So {}.", value);
  question.answer = fmt::format("{} {}.", frame, value);
  question.expected = text_expected(value);
  return question;
}

// "2 a, 1 c": the letters at these places, from 1.
std::string picked(std::string_view word, const std::vector<size_t>& places) {
  std::vector<std::string> letters;
  for (const size_t place : places) letters.push_back(fmt::format("{} {}", place, word[place - 1]));
  return fmt::format("{}", fmt::join(letters, ", "));
}

struct WordAndLetter {
  std::string word;
  char letter;
  std::string problem;
};

struct WordList {
  std::vector<std::string> words;
  size_t place;
  std::string text, problem;
};

}  // namespace

Question draw_reverse(Draw& draw) {
  const Word drawn = draw_word(draw, "reverse");
  const std::string& word = drawn.word;
  std::vector<size_t> places;
  for (size_t place = word.size(); place > 0; --place) places.push_back(place);
  Question question = asked(drawn.problem, draw.phrase(kReverse, word));
  question.reasoning = fmt::format("{}\n{}\n", spelled(word), picked(word, places));
  return answered(std::move(question), {word.rbegin(), word.rend()}, fmt::format("{} backwards is", word));
}

Question draw_upper_case(Draw& draw) {
  const Word drawn = draw_word(draw, "upper");
  std::string upper;
  std::vector<std::string> steps;
  for (const char c : drawn.word) {
    upper += static_cast<char>(c - 'a' + 'A');
    steps.push_back(fmt::format("{} {}", c, upper.back()));
  }
  Question question = asked(drawn.problem, draw.phrase(kUpper, drawn.word));
  question.reasoning = fmt::format("{}\n{}\n", spelled(drawn.word), fmt::join(steps, ", "));
  return answered(std::move(question), upper, fmt::format("{} in upper case is", drawn.word));
}

Question draw_first_last(Draw& draw) {
  const Word drawn = draw_word(draw, "ends of");
  const std::string& word = drawn.word;
  const bool first = draw.random.chance(50);
  const auto count = static_cast<size_t>(draw.random.between(1, 3));
  const std::string_view side = first ? "first" : "last";
  const std::string text = count == 1 ? draw.phrase(kFirstOne, word, side) : draw.phrase(kFirstMany, word, side, count);
  const size_t begin = first ? 0 : word.size() - count;
  std::vector<size_t> places;
  for (size_t i = 0; i < count; ++i) places.push_back(begin + i + 1);
  Question question = asked(drawn.problem, capitalized(text));
  question.reasoning = fmt::format("{}\n{}\n", spelled(word), picked(word, places));
  const std::string frame = count == 1 ? fmt::format("The {} letter of {} is", side, word)
                                       : fmt::format("The {} {} letters of {} are", side, count, word);
  return answered(std::move(question), word.substr(begin, count), frame);
}

Question draw_join(Draw& draw) {
  struct Pair {
    std::string a, b, problem;
  };
  const Pair pair = draw.fitting([&] {
    std::string a = any_word(draw.random), b = any_word(draw.random);
    std::string problem = fmt::format("{} {}", a, b);
    return Pair{std::move(a), std::move(b), std::move(problem)};
  });
  Question question = asked(pair.problem, draw.phrase(kJoin, pair.a, pair.b));
  question.reasoning = fmt::format("{}\n{}\n", spelled(pair.a), spelled(pair.b));
  return answered(std::move(question), pair.a + pair.b, "Joined:");
}

Question draw_nth_word(Draw& draw) {
  const WordList drawn = draw.fitting([&] {
    WordList list;
    const auto count = static_cast<size_t>(draw.random.between(3, 8));
    while (list.words.size() < count) {
      std::string word(draw.random.pick(common_nouns()));
      if (!std::ranges::count(list.words, word)) list.words.push_back(std::move(word));
    }
    list.place = static_cast<size_t>(draw.random.between(1, static_cast<int64_t>(count)));
    list.text = fmt::format("{}", fmt::join(list.words, " "));
    list.problem = fmt::format("{} of {}", list.place, list.text);
    return list;
  });
  std::vector<std::string> steps;
  for (size_t i = 0; i < drawn.place; ++i) steps.push_back(fmt::format("{} {}", drawn.words[i], i + 1));
  Question question = asked(drawn.problem, draw.phrase(kNth, drawn.text, drawn.place));
  question.reasoning = fmt::format("{}\n", fmt::join(steps, ", "));
  return answered(std::move(question), drawn.words[drawn.place - 1], fmt::format("Word {} is", drawn.place));
}

Question draw_remove_letter(Draw& draw) {
  const WordAndLetter drawn = draw.fitting([&] {
    while (true) {
      std::string word = any_word(draw.random);
      const char letter = draw.random.pick(word);
      std::string problem = fmt::format("{} without {}", word, letter);
      if (word.find_first_not_of(letter) != std::string::npos)
        return WordAndLetter{std::move(word), letter, std::move(problem)};
    }
  });
  std::string left;
  std::vector<size_t> places;
  for (size_t i = 0; i < drawn.word.size(); ++i) {
    if (drawn.word[i] == drawn.letter) continue;
    left += drawn.word[i];
    places.push_back(i + 1);
  }
  const std::string letter(1, drawn.letter);
  Question question = asked(drawn.problem, draw.phrase(kRemove, drawn.word, letter));
  question.reasoning =
      fmt::format("{}\n{}\nwithout {}: {}\n", drawn.problem, spelled(drawn.word), letter, picked(drawn.word, places));
  return answered(std::move(question), left, fmt::format("{} without {} is", drawn.word, letter));
}

}  // namespace fathom
