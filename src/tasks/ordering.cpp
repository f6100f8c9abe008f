// Comparing numbers, the smallest and the largest of a list, sorting.
#include <fmt/ranges.h>

#include <algorithm>

#include "tasks/columns.h"
#include "tasks/draw.h"

namespace fathom {

namespace {

constexpr std::string_view kCompare[] = {"Which is {2}, {0} or {1}?",         "Which number is {2}: {0} or {1}?",
                                         "{0} or {1}: which is {2}?",         "Which of {0} and {1} is {2}?",
                                         "Tell me which is {2}, {0} or {1}.", "Of {0} and {1}, which number is {2}?"};
constexpr std::string_view kMinMax[] = {"What is the {1} of {0}?",         "Which is the {1} number: {0}?",
                                        "Find the {1} number in {0}.",     "{0}: which is the {1}?",
                                        "Numbers: {0}. Which is the {1}?", "Give me the {1} of these: {0}."};
constexpr std::string_view kSort[] = {"Sort {0} {1}.",          "Sort these numbers {1}: {0}.",
                                      "Put {0} in order, {1}.", "Order these {1}: {0}",
                                      "Arrange {0} {1}.",       "Numbers: {0}. Sort them {1}."};
// Whoever names no order wants the smallest first.
constexpr std::string_view kSortPlain[] = {"Sort {0}.",         "Sort these numbers: {0}.",
                                           "Put {0} in order.", "Order these: {0}",
                                           "Arrange {0}.",      "Numbers: {0}. Sort them."};
constexpr std::string_view kAscending[] = {"in ascending order", "from smallest to largest", "from low to high"};
constexpr std::string_view kDescending[] = {"in descending order", "from largest to smallest", "from high to low"};

struct Numbers {
  std::vector<int64_t> list;
  std::string problem;

  // Digits of the longest.
  size_t places() const { return digits_of(std::ranges::max(list)); }
};

// "45, 7, 123", or with 3 places "045, 007, 123": then digits of the same place stand as far apart everywhere.
std::string joined(const std::vector<int64_t>& numbers, size_t places = 0) {
  std::vector<std::string> texts;
  for (const int64_t x : numbers) texts.push_back(padded(x, places));
  return fmt::format("{}", fmt::join(texts, ", "));
}

// "ascending, digits 3, of 045, 007, 123": how far to pad is settled once, before the first number is written.
std::string stated(std::string_view name, const Numbers& numbers) {
  return fmt::format("{}, digits {}, of {}", name, numbers.places(), joined(numbers.list, numbers.places()));
}

// Different ones, below 100, 1,000 or 10,000; in one list of four each has a limit of its own, so that lengths differ. The
// problem is the set: another order of it is the same problem.
Numbers draw_numbers(Draw& draw, std::string_view kind, int64_t low, int64_t high) {
  return draw.fitting([&] {
    const auto count = static_cast<size_t>(draw.random.between(low, high));
    const int64_t limit = draw.random.pick(std::to_array<int64_t>({100, 1000, 10000}));
    const bool mixed = draw.random.chance(25);
    Numbers drawn;
    while (drawn.list.size() < count) {
      const int64_t x =
          draw.random.below(mixed ? draw.random.pick(std::to_array<int64_t>({10, 100, 1000, 10000})) : limit);
      if (!std::ranges::count(drawn.list, x)) drawn.list.push_back(x);
    }
    std::vector<int64_t> sorted = drawn.list;
    std::ranges::sort(sorted);
    drawn.problem = fmt::format("{} {}", kind, joined(sorted));
    return drawn;
  });
}

}  // namespace

Question draw_compare(Draw& draw) {
  const Numbers numbers = draw_numbers(draw, "compare", 2, 2);
  const int64_t a = numbers.list[0], b = numbers.list[1];
  const bool larger = draw.random.chance(50);
  const std::string_view name = larger ? "larger" : "smaller";
  const int64_t value = larger ? std::max(a, b) : std::min(a, b);
  Question question = asked(numbers.problem, draw.phrase(kCompare, a, b, name));
  question.reasoning = fmt::format("{} of {}, {}\n", name, a, b);
  append_comparison(question.reasoning, a, b, numbers.places());
  question.reasoning += fmt::format("\nSo {}.", value);
  question.answer = fmt::format("The {} number is {}.", name, value);
  question.expected = number_expected(value);
  return question;
}

Question draw_min_max(Draw& draw) {
  const Numbers numbers = draw_numbers(draw, "list", 3, 8);
  const bool largest = draw.random.chance(50);
  const std::string_view name = largest ? "largest" : "smallest";
  Question question = asked(numbers.problem, draw.phrase(kMinMax, joined(numbers.list), name));
  const size_t places = numbers.places();
  int64_t best = numbers.list[0];
  question.reasoning = fmt::format("{}\n{}\n", stated(name, numbers), padded(best, places));
  for (size_t i = 1; i < numbers.list.size(); ++i) {
    const int64_t x = numbers.list[i];
    append_comparison(question.reasoning, x, best, places);
    if ((x > best) == largest) best = x;
    question.reasoning += fmt::format(", so {}\n", padded(best, places));
  }
  question.reasoning += fmt::format("So {}.", best);
  question.answer = fmt::format("The {} number is {}.", name, best);
  question.expected = number_expected(best);
  return question;
}

// Insertion: each number is compared with those sorted so far, from the first, up to the one that it comes before.
Question draw_sort(Draw& draw) {
  const Numbers numbers = draw_numbers(draw, "list", 3, 8);
  const bool ascending = draw.random.chance(60);
  const bool named = !ascending || draw.random.chance(60);
  const std::string_view order = ascending ? draw.random.pick(kAscending) : draw.random.pick(kDescending);
  const std::string_view name = ascending ? "ascending" : "descending";
  Question question = asked(numbers.problem, draw.phrase(named ? kSort : kSortPlain, joined(numbers.list), order));
  const size_t places = numbers.places();
  question.reasoning = stated(name, numbers) + '\n';
  std::vector<int64_t> sorted;
  for (const int64_t x : numbers.list) {
    auto at = sorted.begin();
    for (bool before = false; !before && at != sorted.end();) {
      append_comparison(question.reasoning, x, *at, places);
      question.reasoning += '\n';
      before = (x < *at) == ascending;
      if (!before) ++at;
    }
    sorted.insert(at, x);
    question.reasoning += fmt::format("{} {}\n", name, joined(sorted, places));
  }
  question.expected.form = Expected::Form::kNumberList;
  for (const int64_t x : sorted) question.expected.values.push_back(std::to_string(x));
  question.reasoning += fmt::format("So {}.", joined(sorted));
  question.answer = fmt::format("Sorted: {}.", joined(sorted));
  return question;
}

}  // namespace fathom
