// Grading: exact in what is said, tolerant in how.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/check.h"
#include "base/quote.h"
#include "tasks/question.h"
#include "tasks/random.h"
#include "text/json.h"

namespace fathom {

namespace {

constexpr uint64_t kHeldOutOneIn = 8;
constexpr std::string_view kMinus = "−";  // U+2212
constexpr std::string_view kAround = " \t\r\n\"'`*.!";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string_view stripped(std::string_view text) {
  const size_t begin = text.find_first_not_of(kAround);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kAround) - begin + 1);
}

// Whether text[at...] is a group of three after a comma: "1,474".
bool is_group(std::string_view text, size_t at) {
  if (at + 3 >= text.size() || text[at] != ',') return false;
  const bool three = is_digit(text[at + 1]) && is_digit(text[at + 2]) && is_digit(text[at + 3]);
  return three && (at + 4 == text.size() || !is_digit(text[at + 4]));
}

// Whether what ends before `at` is a sign, not an operator between two things.
bool is_negative(std::string_view text, size_t at) {
  const std::string_view before = text.substr(0, at);
  const size_t size = before.ends_with('-') ? 1 : before.ends_with(kMinus) ? kMinus.size() : 0;
  if (size == 0) return false;
  if (size == at) return true;
  const char outer = before[at - size - 1];
  return !is_digit(outer) && !is_letter(outer) && outer != ')';
}

// The numbers of a text as they stand, signs and decimals included; `grouped`: a comma between groups is left out.
std::vector<std::string> numbers_in(std::string_view text, bool grouped) {
  std::vector<std::string> numbers;
  for (size_t at = 0; at < text.size();) {
    if (!is_digit(text[at])) {
      ++at;
      continue;
    }
    std::string number = is_negative(text, at) ? "-" : "";
    while (at < text.size()) {
      if (is_digit(text[at])) {
        number += text[at++];
      } else if (grouped && is_group(text, at)) {
        ++at;
      } else if (text[at] == '.' && at + 1 < text.size() && is_digit(text[at + 1])) {
        number += text[at++];
      } else {
        break;
      }
    }
    numbers.push_back(std::move(number));
  }
  return numbers;
}

Grade right() { return {.correct = true, .why = {}}; }

template <typename... Args>
Grade wrong(fmt::format_string<Args...> format, Args&&... args) {
  return {.correct = false, .why = fmt::format(format, std::forward<Args>(args)...)};
}

std::string_view last_user_text(const Question& question) {
  for (auto message = question.messages.rbegin(); message != question.messages.rend(); ++message) {
    if (message->role == Role::kUser) return message->content;
  }
  return {};
}

// A number that the question does not have, if there is one.
std::optional<std::string> foreign_number(const Question& question, std::string_view text) {
  const std::vector<std::string> found = numbers_in(text, true);
  if (found.empty()) return std::nullopt;
  std::vector<std::string> known = numbers_in(last_user_text(question), false);
  std::ranges::sort(known);
  for (const std::string& number : found) {
    if (!std::ranges::binary_search(known, number)) return number;
  }
  return std::nullopt;
}

Grade grade_number(const Question& question, std::string_view answer) {
  const std::string& value = question.expected.values[0];
  const size_t equals = answer.rfind('=');
  const std::string_view left = equals == std::string_view::npos ? "" : answer.substr(0, equals);
  const std::string_view right_side = equals == std::string_view::npos ? answer : answer.substr(equals + 1);
  const std::vector<std::string> numbers = numbers_in(right_side, true);
  if (numbers.size() != 1) {
    return wrong("found {} numbers in {}, expected only {}", numbers.size(), in_quotes(answer), value);
  }
  if (numbers[0] != value) return wrong("found {}, expected {}", in_quotes(numbers[0]), value);
  if (const auto foreign = foreign_number(question, left)) {
    return wrong("{} is no number of the question", in_quotes(*foreign));
  }
  return right();
}

Grade grade_number_list(const Question& question, std::string_view answer) {
  const size_t colon = answer.rfind(':');
  const std::string_view list = colon == std::string_view::npos ? answer : answer.substr(colon + 1);
  if (numbers_in(list, false) == question.expected.values && numbers_in(answer, false) == question.expected.values) {
    return right();
  }
  return wrong("found {}, expected {}", in_quotes(answer), fmt::join(question.expected.values, ", "));
}

bool connects(std::string_view word) {
  constexpr std::array<std::string_view, 4> kWords = {"is", "are", "=", "becomes"};
  return std::ranges::count(kWords, word) > 0 || (!word.empty() && word.back() == ':');
}

// What follows the one word like "is"; the whole text when there is none. Nothing when there are several.
std::optional<std::string_view> claimed(std::string_view text, std::string_view& frame) {
  std::optional<size_t> end;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = text.find_first_not_of(" \t\r\n", at);
    if (begin == std::string_view::npos) break;
    at = std::min(text.find_first_of(" \t\r\n", begin), text.size());
    if (!connects(text.substr(begin, at - begin))) continue;
    if (end) return std::nullopt;
    end = at;
  }
  frame = text.substr(0, end.value_or(0));
  return stripped(text.substr(end.value_or(0)));
}

std::vector<std::string> list_items(std::string_view text) {
  std::string separated(text);
  for (size_t at = 0; (at = separated.find(" and ", at)) != std::string::npos;) separated.replace(at, 5, " , ");
  std::vector<std::string> items;
  for (size_t at = 0; at <= separated.size();) {
    const size_t end = std::min(separated.find_first_of(",;\n", at), separated.size());
    const std::string_view item = stripped(std::string_view(separated).substr(at, end - at));
    if (!item.empty()) items.emplace_back(item);
    at = end + 1;
  }
  return items;
}

// kText and kTextSet.
Grade grade_text(const Question& question, std::string_view answer) {
  const Expected& expected = question.expected;
  std::string_view frame;
  const auto value = claimed(answer, frame);
  if (!value) return wrong("found more than one claim in {}", in_quotes(answer));
  bool same = *value == expected.values[0];
  if (expected.form == Expected::Form::kTextSet) {
    std::vector<std::string> found = list_items(*value), wanted = expected.values;
    std::ranges::sort(found);
    std::ranges::sort(wanted);
    same = found == wanted;
  }
  if (!same) return wrong("found {}, expected {}", in_quotes(*value), fmt::join(expected.values, ", "));
  if (const auto foreign = foreign_number(question, frame)) {
    return wrong("{} is no number of the question", in_quotes(*foreign));
  }
  return right();
}

// Lower case, only letters, digits and single spaces.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (is_letter(c) || is_digit(c)) {
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    } else if (static_cast<uint8_t>(c) >= 0x80) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  while (out.ends_with(' ')) out.pop_back();
  return out;
}

Grade grade_sentence(const Question& question, std::string_view answer) {
  if (plain(answer) == plain(question.expected.values[0])) return right();
  return wrong("found {}, expected {}", in_quotes(answer), in_quotes(question.expected.values[0]));
}

// As values: the order of members does not matter.
bool same_json(const std::string& found, const std::string& expected) {
  const auto a = parse_json(found, "arguments"), b = parse_json(expected, "arguments");
  return a && b && nlohmann::json(*a) == nlohmann::json(*b);
}

Grade grade_calls(const Question& question, std::span<const ToolCall> calls) {
  if (calls.size() != question.calls.size()) {
    return wrong("found {} tool calls, expected {}", calls.size(), question.calls.size());
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    const ToolCall &found = calls[i], &expected = question.calls[i];
    if (found.name != expected.name)
      return wrong("found a call of {}, expected {}", in_quotes(found.name), expected.name);
    if (!same_json(found.arguments, expected.arguments)) {
      return wrong("found arguments {}, expected {}", in_quotes(found.arguments), expected.arguments);
    }
  }
  return right();
}

}  // namespace

Split split_of(std::string_view problem) {
  return hash_text(problem) % kHeldOutOneIn == 0 ? Split::kHeldOut : Split::kTrain;
}

Grade grade(const Question& question, std::string_view answer, std::span<const ToolCall> calls) {
  if (question.expected.form == Expected::Form::kCalls) return grade_calls(question, calls);
  if (!calls.empty()) return wrong("found a call of {}, expected an answer", in_quotes(calls[0].name));
  FATHOM_CHECK(!question.expected.values.empty(), "a question of {} has no expected answer", question.task);
  switch (question.expected.form) {
    case Expected::Form::kNumber:
      return grade_number(question, answer);
    case Expected::Form::kNumberList:
      return grade_number_list(question, answer);
    case Expected::Form::kText:
    case Expected::Form::kTextSet:
      return grade_text(question, answer);
    case Expected::Form::kSentence:
    case Expected::Form::kCalls:
      break;
  }
  return grade_sentence(question, answer);
}

}  // namespace fathom
