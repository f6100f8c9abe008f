// Following values through assignments.
#include <fmt/ranges.h>

#include <algorithm>

#include "tasks/draw.h"

namespace fathom {

namespace {

constexpr std::string_view kAskValue[] = {"{0}\nWhat is {1}?", "{0}\nWhat is the value of {1}?", "Given:\n{0}\n{1} = ?",
                                          "{0}\nFind {1}.", "Read:\n{0}\nWhich value does {1} have?"};
constexpr std::string_view kInLine[] = {"{0}. What is {1}?", "Let {0}. What is the value of {1}?", "{0}; {1} = ?"};

// name = source, or name = source operation number; a constant has no source.
struct Assignment {
  char name;
  int64_t source = -1;  // index of an earlier one
  char operation = 0;
  int64_t number = 0, value = 0;
};

struct Program {
  std::vector<Assignment> lines;
  size_t asked = 0;
  std::string problem;
};

// "x + 2", with a name or a value for what is put in.
template <typename Source>
std::string applied(const Assignment& line, const Source& source) {
  if (line.operation == 0) return fmt::format("{}", source);
  const std::string sign = line.operation == '*' ? "×" : std::string(1, line.operation);
  return fmt::format("{} {} {}", source, sign, line.number);
}

// "x = 5", "y = x + 2"
std::string written(const Program& program, const Assignment& line) {
  if (line.source < 0) return fmt::format("{} = {}", line.name, line.number);
  return fmt::format("{} = {}", line.name, applied(line, program.lines[static_cast<size_t>(line.source)].name));
}

// Values stay from 0 to 200, so that every step can be done at once.
void draw_operation(TaskRandom& random, Assignment& line, int64_t source) {
  line.operation = random.chance(15) ? '\0' : random.pick(std::string_view("+++--*"));
  if (line.operation == '*' && source > 12) line.operation = '+';
  if (line.operation == '-' && source == 0) line.operation = '+';
  if (line.operation == '+' && source > 180) line.operation = '-';
  if (line.operation == '+') line.number = random.between(1, 20);
  if (line.operation == '-') line.number = random.between(1, std::min<int64_t>(source, 20));
  if (line.operation == '*') line.number = random.between(2, 9);
  const int64_t n = line.number;
  line.value = line.operation == '+'   ? source + n
               : line.operation == '-' ? source - n
               : line.operation == '*' ? source * n
                                       : source;
}

// The chain that leads to what is asked, without names and distractors.
std::string chain_of(const Program& program) {
  std::string chain;
  for (int64_t i = static_cast<int64_t>(program.asked); i >= 0; i = program.lines[static_cast<size_t>(i)].source) {
    const Assignment& line = program.lines[static_cast<size_t>(i)];
    const std::string step = line.operation == 0 ? "" : std::string(1, line.operation);
    if (line.source < 0 || line.operation != 0) chain.insert(0, fmt::format("{}{}", step, line.number));
  }
  return chain;
}

Program draw_program(TaskRandom& random) {
  Program program;
  const int64_t count = random.between(2, 8);
  std::vector<char> names;
  for (char c = 'a'; c <= 'z'; ++c) names.push_back(c);
  random.shuffle(names);
  for (int64_t i = 0; i < count; ++i) {
    Assignment line{.name = names[static_cast<size_t>(i)]};
    if (i == 0 || random.chance(25)) {
      line.number = line.value = random.between(0, 99);
    } else {
      // Often the line before: chains grow long.
      line.source = random.chance(60) ? i - 1 : random.below(i);
      draw_operation(random, line, program.lines[static_cast<size_t>(line.source)].value);
    }
    program.lines.push_back(line);
  }
  program.asked = static_cast<size_t>(random.chance(50) ? count - 1 : random.below(count));
  program.problem = chain_of(program);
  return program;
}

// "x = 5", "y = x + 2 = 5 + 2 = 7": then with the values put in.
std::string worked(const Program& program, const Assignment& line) {
  std::string text = written(program, line);
  if (line.source < 0) return text;
  text += " = " + applied(line, program.lines[static_cast<size_t>(line.source)].value);
  if (line.operation != 0) text += fmt::format(" = {}", line.value);
  return text;
}

}  // namespace

Question draw_variables(Draw& draw) {
  const Program program = draw.fitting([&] { return draw_program(draw.random); });
  std::vector<std::string> lines;
  Question question;
  for (const Assignment& line : program.lines) {
    lines.push_back(written(program, line));
    question.reasoning += worked(program, line) + "\n";
  }
  const Assignment& asked_for = program.lines[program.asked];
  const std::string name(1, asked_for.name);
  const std::string text = draw.random.chance(70)
                               ? draw.phrase(kAskValue, fmt::format("{}", fmt::join(lines, "\n")), name)
                               : draw.phrase(kInLine, fmt::format("{}", fmt::join(lines, "; ")), name);
  question.problem = program.problem;
  question.messages.push_back({.content = text});
  question.reasoning += fmt::format("So {}.", asked_for.value);
  question.answer = fmt::format("{} = {}.", name, asked_for.value);
  question.expected = number_expected(asked_for.value);
  return question;
}

}  // namespace fathom
