// A tool for numbers that are too large to work out, and what to make of its result.
#include "tasks/calculator.h"

#include <array>

#include "tasks/draw.h"

namespace fathom {

namespace {

struct Operation {
  std::string_view name, sign;  // as the tool knows it; as it is written in an equation
  std::array<std::string_view, 4> phrasings;
};

constexpr Operation kOperations[] = {
    {"add",
     "+",
     {"What is {0} + {1}?", "Add {0} and {1}.", "Use the calculator: {0} + {1}", "How much is {0} plus {1}?"}},
    {"subtract",
     "-",
     {"What is {0} - {1}?", "Subtract {1} from {0}.", "Use the calculator: {0} - {1}", "How much is {0} minus {1}?"}},
    {"multiply",
     "×",
     {"What is {0} × {1}?", "Multiply {0} by {1}.", "Use the calculator: {0} * {1}", "How much is {0} times {1}?"}},
    {"divide",
     "/",
     {"What is {0} / {1}?", "Divide {0} by {1}.", "Use the calculator: {0} / {1}", "How much is {0} divided by {1}?"}},
};

struct Sum {
  const Operation* operation;
  int64_t a, b, value;
  std::string problem;
};

// Whoever has a calculator uses it for small numbers too.
Sum draw_sum(Draw& draw) {
  return draw.fitting([&] {
    Sum sum{};
    sum.operation = &draw.random.pick(kOperations);
    sum.a = draw_number(draw.random, 1, 5, 1);
    sum.b = draw_number(draw.random, 1, 5, 1);
    const std::string_view name = sum.operation->name;
    if (name == "divide") sum.a = sum.b * draw.random.between(2, 999);
    sum.value = name == "add"        ? sum.a + sum.b
                : name == "subtract" ? sum.a - sum.b
                : name == "multiply" ? sum.a * sum.b
                                     : sum.a / sum.b;
    sum.problem = fmt::format("{} {} {}", name, sum.a, sum.b);
    return sum;
  });
}

ToolCall call_for(const Sum& sum) {
  const Json arguments = {{"operation", sum.operation->name}, {"a", sum.a}, {"b", sum.b}};
  return {.id = {}, .name = "calculator", .arguments = dump_json(arguments)};
}

std::string equation(const Sum& sum) { return fmt::format("{} {} {}", sum.a, sum.operation->sign, sum.b); }

}  // namespace

Tool calculator_tool() {
  const Json parameters = {
      {"type", "object"},
      {"properties",
       {{"operation", {{"type", "string"}, {"enum", {"add", "subtract", "multiply", "divide"}}}},
        {"a", {{"type", "number"}}},
        {"b", {{"type", "number"}}}}},
      {"required", {"operation", "a", "b"}},
  };
  Tool tool{.name = "calculator",
            .description = "Exact arithmetic with two numbers.",
            .parameters = parameters,
            .definition = {}};
  tool.definition = {{"name", tool.name}, {"description", tool.description}, {"parameters", parameters}};
  return tool;
}

Question draw_calculator(Draw& draw) {
  const Sum sum = draw_sum(draw);
  Question question = asked(sum.problem, draw.phrase(sum.operation->phrasings, sum.a, sum.b));
  question.tools.push_back(calculator_tool());
  question.reasoning =
      fmt::format("{}, {}, a {}, b {}\nSo calculator.", equation(sum), sum.operation->name, sum.a, sum.b);
  question.calls.push_back(call_for(sum));
  question.expected.form = Expected::Form::kCalls;
  return question;
}

Question draw_calculator_result(Draw& draw) {
  const Sum sum = draw_sum(draw);
  Question question = asked(sum.problem, draw.phrase(sum.operation->phrasings, sum.a, sum.b));
  question.tools.push_back(calculator_tool());
  question.messages.push_back(
      {.role = Role::kAssistant, .content = {}, .reasoning_content = {}, .tool_calls = {call_for(sum)}});
  question.messages.push_back({.role = Role::kTool, .content = std::to_string(sum.value)});
  question.answer = fmt::format("{} = {}.", equation(sum), sum.value);
  question.expected = number_expected(sum.value);
  return question;
}

}  // namespace fathom
