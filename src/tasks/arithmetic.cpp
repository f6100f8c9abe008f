// Sums, differences and products of whole numbers.
#include <algorithm>

#include "tasks/columns.h"
#include "tasks/draw.h"

namespace fathom {

namespace {

constexpr std::string_view kAdd[] = {"What is {0} + {1}?",
                                     "{0} + {1}",
                                     "{0}+{1}=?",
                                     "Add {0} and {1}.",
                                     "What is the sum of {0} and {1}?",
                                     "{0} plus {1}?",
                                     "Calculate {0} + {1}.",
                                     "Compute {0}+{1}.",
                                     "How much is {0} plus {1}?"};
constexpr std::string_view kSubtract[] = {
    "What is {0} - {1}?",   "{0} - {1}",      "{0}-{1}=?",          "Subtract {1} from {0}.", "What is {0} minus {1}?",
    "Calculate {0} - {1}.", "{0} minus {1}?", "Compute {0} − {1}.", "How much is {0} - {1}?"};
constexpr std::string_view kMultiply[] = {"What is {0} × {1}?",
                                          "{0} × {1}",
                                          "{0}*{1}=?",
                                          "Multiply {0} by {1}.",
                                          "What is {0} times {1}?",
                                          "Calculate {0} * {1}.",
                                          "{0} times {1}?",
                                          "Compute {0} x {1}.",
                                          "What is the product of {0} and {1}?"};

struct Operands {
  int64_t a, b;
  std::string problem;
};

Question answered(Question question, int64_t value, std::string_view equation) {
  question.reasoning += fmt::format("So {}.", value);
  question.answer = fmt::format("{} = {}.", equation, value);
  question.expected = number_expected(value);
  return question;
}

// 20 and 3 for 23.
void append_long_product(std::string& out, int64_t a, int64_t b) {
  append_product(out, a, b % 10, 0);
  if (b < 10) return;
  append_product(out, a, b / 10, 1);
  append_addition(out, a * (b % 10), a * (b / 10) * 10);
}

}  // namespace

Question draw_add(Draw& draw) {
  const Operands x = draw.fitting([&] {
    const int64_t a = draw_number(draw.random, 1, 4), b = draw_number(draw.random, 1, 4);
    return Operands{a, b, fmt::format("{}+{}", std::min(a, b), std::max(a, b))};
  });
  Question question = asked(x.problem, draw.phrase(kAdd, x.a, x.b));
  append_addition(question.reasoning, x.a, x.b);
  return answered(std::move(question), x.a + x.b, fmt::format("{} + {}", x.a, x.b));
}

Question draw_subtract(Draw& draw) {
  const Operands x = draw.fitting([&] {
    const int64_t a = draw_number(draw.random, 1, 4), b = draw_number(draw.random, 1, 4);
    return Operands{a, b, fmt::format("{}-{}", std::max(a, b), std::min(a, b))};
  });
  Question question = asked(x.problem, draw.phrase(kSubtract, x.a, x.b));
  question.reasoning = fmt::format("{} - {}\n", x.a, x.b);
  append_comparison(question.reasoning, x.a, x.b, std::max(digits_of(x.a), digits_of(x.b)));
  question.reasoning += x.a < x.b ? ", negative\n" : "\n";
  append_subtraction(question.reasoning, std::max(x.a, x.b), std::min(x.a, x.b));
  return answered(std::move(question), x.a - x.b, fmt::format("{} - {}", x.a, x.b));
}

// One to three digits by one, or two by two.
Question draw_multiply(Draw& draw) {
  const Operands x = draw.fitting([&] {
    const bool two_by_two = draw.random.chance(40);
    int64_t a = draw_number(draw.random, two_by_two ? 2 : 1, two_by_two ? 2 : 3);
    int64_t b = draw_number(draw.random, two_by_two ? 2 : 1, two_by_two ? 2 : 1);
    return Operands{a, b, fmt::format("{}*{}", std::min(a, b), std::max(a, b))};
  });
  Question question = asked(x.problem, draw.phrase(kMultiply, x.a, x.b));
  append_long_product(question.reasoning, x.a, x.b);
  return answered(std::move(question), x.a * x.b, fmt::format("{} × {}", x.a, x.b));
}

}  // namespace fathom
