// Worked answers, read as a reader would: every equation, comparison and count in them must be true.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <sstream>

#include "tasks/support.h"

namespace fathom::test {
namespace {

using Matches = std::sregex_iterator;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(", ", at), list.size());
    parts.push_back(list.substr(at, end - at));
    at = end + 2;
  }
  return parts;
}

// "2+3×4", spaces or not: products first.
int64_t evaluated(const std::string& sum) {
  static const std::regex kToken(R"((-|\+|×)? ?(\d+))");
  int64_t total = 0, product = 0;
  bool first = true;
  for (auto m = Matches(sum.begin(), sum.end(), kToken); m != Matches(); ++m) {
    const int64_t x = std::stoll((*m)[2]);
    const std::string sign = (*m)[1];
    if (!first && sign == "×") {
      product *= x;
      continue;
    }
    total += product;
    product = sign == "-" ? -x : x;
    first = false;
  }
  return total + product;
}

// How many equations there are; each must hold.
int check_equations(const std::string& text) {
  static const std::regex kEquation(R"((-?\d+(?: ?(?:-|\+|×) ?\d+)+) ?= ?(-?\d+))");
  int count = 0;
  for (auto m = Matches(text.begin(), text.end(), kEquation); m != Matches(); ++m, ++count) {
    EXPECT_EQ(evaluated((*m)[1]), std::stoll((*m)[2])) << m->str();
  }
  return count;
}

// "058 607: 0 6 <": digits in turn, up to the first that differ; every sign must be true.
int check_comparisons(const std::string& text) {
  static const std::regex kLine(R"((\d+) (\d+): (.*?)(, so \d+|, negative)?)");
  int count = 0;
  for (const std::string& line : lines_of(text)) {
    std::smatch m;
    if (!std::regex_match(line, m, kLine)) continue;
    ++count;
    const std::string a = m[1], b = m[2];
    const auto steps = parts_of(m[3]);
    EXPECT_EQ(a.size(), b.size()) << line;
    for (size_t i = 0; i < steps.size(); ++i) {
      const char sign = a.at(i) < b.at(i) ? '<' : a.at(i) > b.at(i) ? '>' : '=';
      EXPECT_EQ(steps[i], fmt::format("{} {} {}", a.at(i), b.at(i), sign)) << line;
      EXPECT_EQ(sign != '=' || i + 1 == a.size(), i + 1 == steps.size()) << line;
    }
  }
  return count;
}

// "8+7+0=15, digit 5, carry 1, so 65": each follows from what is before it.
int check_columns(const std::string& text) {
  static const std::regex kColumn(R"(.*=(-?\d+), digit (\d), (carry|borrow) (\d+), so (\d+))");
  std::string before;
  int count = 0;
  for (const std::string& line : lines_of(text)) {
    std::smatch m;
    if (!std::regex_match(line, m, kColumn)) {
      before.clear();
      continue;
    }
    ++count;
    const int64_t result = std::stoll(m[1]), digit = std::stoll(m[2]), carry = std::stoll(m[4]);
    EXPECT_EQ(result, m[3] == "carry" ? 10 * carry + digit : digit - 10 * carry) << line;
    const std::string so = m[5];
    EXPECT_EQ(so[0], '0' + digit) << line;
    EXPECT_TRUE(before.empty() || so.substr(1) == before) << line;
    before = so;
  }
  return count;
}

std::string conclusion(const Question& q) { return lines_of(q.reasoning).back(); }

TEST(Reasoning, EndsWithTheValue) {
  for (const TaskInfo& task : task_list()) {
    for (uint64_t seed = 0; seed < kSeeds && task.reasons; ++seed) {
      const Question q = question(task.name, seed);
      const std::string last = conclusion(q);
      ASSERT_TRUE(last.starts_with("So ") && last.ends_with(".")) << q.reasoning;
      if (q.expected.form == Expected::Form::kSentence || q.expected.form == Expected::Form::kCalls) continue;
      Question bare = q;
      const Grade grade_of_it = grade(bare, last.substr(3), {});
      ASSERT_TRUE(grade_of_it.correct) << grade_of_it.why << "\n" << q.reasoning;
    }
  }
}

TEST(Reasoning, EveryEquationAndComparisonHolds) {
  for (const char* task : {"add", "subtract", "multiply", "expression", "variables", "compare", "min-max", "sort"}) {
    const std::string name = task;
    int equations = 0, comparisons = 0, columns = 0;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Question q = question(task, seed);
      const int more = check_equations(q.reasoning);
      comparisons += check_comparisons(q.reasoning);
      columns += check_columns(q.reasoning);
      equations += more;
      ASSERT_FALSE(HasFailure()) << task << ": " << text_of(q) << "\n" << q.reasoning;
      ASSERT_TRUE(more > 0 || !(name == "add" || name == "subtract" || name == "multiply" || name == "expression"))
          << q.reasoning;
    }
    if (name == "add" || name == "subtract" || name == "multiply") {
      EXPECT_GT(columns, 1000) << task;
    }
    if (name == "subtract" || name == "compare" || name == "min-max" || name == "sort") {
      EXPECT_GE(comparisons, kSeeds) << task;
    }
    if (name == "variables") {
      EXPECT_GT(equations, 500) << task;
    }
  }
}

TEST(Reasoning, ArithmeticIsThatOfTheQuestion) {
  for (const char* task : {"add", "subtract", "multiply", "expression"}) {
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Question q = question(task, seed);
      const size_t equals = q.answer.find(" = ");
      std::string left = q.answer.substr(0, equals);
      if (left.find('(') == std::string::npos) {
        ASSERT_EQ(std::to_string(evaluated(left)), q.expected.values[0]) << q.answer;
      }
    }
  }
}

// "18 - 35 = -(35 - 18) = -17": the difference turned round, then its value.
TEST(Reasoning, ExpressionsBelowZeroAreTurnedRound) {
  static const std::regex kLine(R"((\d+) - (\d+) = (?:-\((\d+) - (\d+)\) = )?(-?\d+).*)");
  int turned = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question("expression", seed);
    for (const std::string& line : lines_of(q.reasoning)) {
      std::smatch m;
      if (!std::regex_match(line, m, kLine)) continue;
      const int64_t a = std::stoll(m[1]), b = std::stoll(m[2]);
      ASSERT_EQ(m[3].matched, a < b) << q.reasoning;
      ASSERT_EQ(std::stoll(m[5]), a - b) << q.reasoning;
      if (!m[3].matched) continue;
      ++turned;
      ASSERT_EQ(std::stoll(m[3]), b) << q.reasoning;
      ASSERT_EQ(std::stoll(m[4]), a) << q.reasoning;
    }
  }
  EXPECT_GT(turned, 10);
}

TEST(Reasoning, ExpressionsAreReducedOneOperationAtATime) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question("expression", seed);
    const auto lines = lines_of(q.reasoning);
    std::string left = lines[0];
    for (size_t i = 1; i + 1 < lines.size(); ++i) {
      const size_t equals = lines[i].find(" = "), then = lines[i].find(", left ");
      const std::string operation = lines[i].substr(0, equals);
      ASSERT_NE(left.find(operation), std::string::npos) << q.reasoning;
      if (then == std::string::npos) break;
      // The operation, in brackets or not, replaced by its value.
      const std::string value_of_it = lines[i].substr(equals + 3, then - equals - 3), next = lines[i].substr(then + 7);
      bool follows = false;
      for (const std::string& from : {"(" + operation + ")", operation}) {
        const size_t at = left.find(from);
        std::string put = left;
        if (at != std::string::npos) follows = follows || put.replace(at, from.size(), value_of_it) == next;
      }
      ASSERT_TRUE(follows) << left << " -> " << next << "\n" << q.reasoning;
      left = next;
    }
  }
}

std::vector<int64_t> numbers_of(const std::string& list) {
  std::vector<int64_t> numbers;
  for (const std::string& part : parts_of(list)) numbers.push_back(std::stoll(part));
  return numbers;
}

// What stands after "ascending, digits 3, of": each number has as many digits as is said, and one of them needs them all.
std::string stated_list(const std::string& line) {
  static const std::regex kStated("[a-z]+, digits (\\d), of (.*)");
  std::smatch m;
  if (!std::regex_match(line, m, kStated)) {
    ADD_FAILURE() << line;
    return "";
  }
  const auto digits = static_cast<size_t>(std::stoll(m[1]));
  int64_t longest = 0;
  for (const std::string& part : parts_of(m[2])) {
    EXPECT_EQ(part.size(), digits) << line;
    longest = std::max<int64_t>(longest, std::stoll(part));
  }
  EXPECT_EQ(std::to_string(longest).size(), digits) << line;
  return m[2];
}

TEST(Reasoning, MinMaxComparesEachWithTheBestSoFar) {
  static const std::regex kStep("(\\d+) (\\d+): .*, so (\\d+)");
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question("min-max", seed);
    const auto lines = lines_of(q.reasoning);
    const bool largest = lines[0].starts_with("largest, ");
    const auto list = numbers_of(stated_list(lines[0]));
    ASSERT_EQ(lines.size(), list.size() + 2) << q.reasoning;
    int64_t best = std::stoll(lines[1]);
    ASSERT_EQ(best, list[0]);
    for (size_t i = 1; i < list.size(); ++i) {
      std::smatch m;
      ASSERT_TRUE(std::regex_match(lines[i + 1], m, kStep)) << lines[i + 1];
      ASSERT_EQ(std::stoll(m[1]), list[i]);
      ASSERT_EQ(std::stoll(m[2]), best);
      best = largest ? std::max(best, list[i]) : std::min(best, list[i]);
      ASSERT_EQ(std::stoll(m[3]), best);
    }
  }
}

// A question that names no order asks for the smallest first; some do.
TEST(Reasoning, SortingWithoutAnOrderIsAscending) {
  static const std::regex kOrder(
      "ascending|descending|smallest to largest|largest to smallest|low to high|high to low");
  int64_t unnamed = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question("sort", seed);
    if (std::regex_search(q.messages.back().content, kOrder)) continue;
    ++unnamed;
    EXPECT_TRUE(q.reasoning.starts_with("ascending, ")) << q.messages.back().content;
    std::vector<int64_t> values;
    for (const std::string& value : q.expected.values) values.push_back(std::stoll(value));
    EXPECT_TRUE(std::ranges::is_sorted(values)) << q.answer;
  }
  EXPECT_GT(unnamed, kSeeds / 10);
  EXPECT_LT(unnamed, kSeeds / 2);
}

// Every number is compared with those before it from the first on, and put before the one that it comes before.
TEST(Reasoning, SortingInsertsEachWhereItsComparisonsEnd) {
  static const std::regex kStep("(\\d+) (\\d+): .*([<>])");
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question("sort", seed);
    const auto lines = lines_of(q.reasoning);
    const std::string order = lines[0].substr(0, lines[0].find(',')) + " ";
    const char comes_before = order == "ascending " ? '<' : '>';
    const auto list = numbers_of(stated_list(lines[0]));
    std::vector<int64_t> sorted;
    size_t line = 1;
    for (const int64_t x : list) {
      size_t at = 0;
      for (std::smatch m; std::regex_match(lines.at(line), m, kStep); ++line) {
        ASSERT_EQ(std::stoll(m[1]), x) << q.reasoning;
        ASSERT_EQ(std::stoll(m[2]), sorted.at(at)) << q.reasoning;
        const std::string sign = m[3];
        if (sign[0] != comes_before) ++at;
      }
      sorted.insert(sorted.begin() + static_cast<std::ptrdiff_t>(at), x);
      ASSERT_TRUE(lines.at(line).starts_with(order)) << q.reasoning;
      ASSERT_EQ(numbers_of(lines[line].substr(order.size())), sorted) << q.reasoning;
      ++line;
    }
    ASSERT_EQ(line + 1, lines.size()) << q.reasoning;
    ASSERT_EQ(sorted.size(), q.expected.values.size());
    for (size_t i = 0; i < sorted.size(); ++i) ASSERT_EQ(std::to_string(sorted[i]), q.expected.values[i]);
  }
}

// The letters of steps like "3 b" or "b 3", put together.
std::string letters_of(const std::string& line, bool place_first) {
  std::string letters;
  for (const std::string& step : parts_of(line)) letters += place_first ? step.back() : step.front();
  return letters;
}

TEST(Reasoning, CountsGoUpByOne) {
  for (const char* task : {"count-letters", "count-items", "count-words"}) {
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Question q = question(task, seed);
      const auto lines = lines_of(q.reasoning);
      const std::string letter = lines.size() == 4 ? lines[0].substr(0, 1) : "";
      int64_t count = 0;
      std::string spelled;
      for (const std::string& step : parts_of(lines[lines.size() - 2])) {
        const std::string thing = step.substr(0, step.find(' '));
        spelled += thing;
        if (letter.empty() || thing == letter) ++count;
        ASSERT_EQ(step, thing + " " + std::to_string(count)) << q.reasoning;
      }
      ASSERT_EQ(std::to_string(count), q.expected.values[0]);
      ASSERT_TRUE(letter.empty() || lines[0] == letter + " in " + spelled) << q.reasoning;
      ASSERT_TRUE(letter.empty() || letters_of(lines[1], false) == spelled) << q.reasoning;
    }
  }
}

TEST(Reasoning, WordsAreSpelledWithTheirPlaces) {
  for (const char* task : {"reverse", "first-last", "join", "upper-case", "remove-letter"}) {
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Question q = question(task, seed);
      auto lines = lines_of(q.reasoning);
      const bool remove = std::string(task) == "remove-letter";
      if (remove) lines.erase(lines.begin());  // what is asked
      ASSERT_EQ(lines.size(), 3u) << q.reasoning;
      const std::string word = letters_of(lines[0], false);
      ASSERT_NE(text_of(q).find(word), std::string::npos) << q.reasoning;
      int place = 0;
      for (const std::string& step : parts_of(lines[0])) ASSERT_EQ(step.substr(2), std::to_string(++place));
      if (std::string(task) == "join") {
        ASSERT_EQ(word + letters_of(lines[1], false), q.expected.values[0]);
        continue;
      }
      if (std::string(task) == "upper-case") {
        ASSERT_EQ(letters_of(lines[1], false), word) << q.reasoning;
        ASSERT_EQ(letters_of(lines[1], true), q.expected.values[0]) << q.reasoning;
        continue;
      }
      if (remove) lines[1] = lines[1].substr(lines[1].find(": ") + 2);
      for (const std::string& step : parts_of(lines[1])) {
        ASSERT_EQ(word.at(std::stoul(step) - 1), step.back()) << q.reasoning;
      }
      ASSERT_EQ(letters_of(lines[1], true), q.expected.values[0]) << q.reasoning;
    }
  }
}

TEST(Reasoning, VariablesAreThoseOfTheProgram) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question("variables", seed);
    const auto lines = lines_of(q.reasoning);
    std::map<char, int64_t> values;
    for (size_t i = 0; i + 1 < lines.size(); ++i) {
      values[lines[i][0]] = std::stoll(lines[i].substr(lines[i].rfind("= ") + 2));
      // The program's line, then the same with the names in it replaced by their values.
      const size_t at = text_of(q).find(lines[i].substr(0, 4));
      ASSERT_NE(at, std::string::npos) << q.reasoning;
      const size_t end = std::min(text_of(q).find_first_of("\n;.", at), text_of(q).size());
      std::string line = text_of(q).substr(at, end - at);
      if (line.size() > 4 && values.contains(line[4]))
        line += " = " + std::to_string(values.at(line[4])) + line.substr(5);
      ASSERT_EQ(lines[i].substr(0, line.size()), line) << q.reasoning;
    }
    ASSERT_EQ(std::to_string(values.at(q.answer[0])), q.expected.values[0]);
  }
}

}  // namespace
}  // namespace fathom::test
