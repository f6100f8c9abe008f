// Expressions of two or three operations, worked one operation at a time.
#include <memory>

#include "tasks/draw.h"

namespace fathom {

namespace {

constexpr std::string_view kAsk[] = {
    "What is {0}?",    "{0}", "{0} = ?", "Calculate {0}.", "Compute {0}.", "Work out {0}.", "What is the value of {0}?",
    "How much is {0}?"};

// A number, or an operation on two others.
struct Node {
  char operation = 0;  // 0: a number
  int64_t value = 0;
  std::unique_ptr<Node> left, right;
};

std::unique_ptr<Node> number(int64_t value) {
  auto node = std::make_unique<Node>();
  node->value = value;
  return node;
}

std::unique_ptr<Node> draw_tree(TaskRandom& random, int64_t operations) {
  if (operations == 0) return number(random.between(1, 20));
  auto node = std::make_unique<Node>();
  node->operation = random.pick(std::string_view("+-*"));
  const int64_t on_the_left = random.below(operations);
  node->left = draw_tree(random, on_the_left);
  node->right = draw_tree(random, operations - 1 - on_the_left);
  return node;
}

std::string write(const Node& node);

// Brackets where precedence, or the order of - and +, would otherwise be another.
std::string write_operand(const Node& node, char outer, bool on_the_right) {
  const bool sum = node.operation == '+' || node.operation == '-';
  const bool brackets = (sum && outer == '*') || (node.operation != 0 && on_the_right && (sum || outer == '*'));
  return brackets ? fmt::format("({})", write(node)) : write(node);
}

std::string write(const Node& node) {
  if (node.operation == 0) return std::to_string(node.value);
  const std::string left = write_operand(*node.left, node.operation, false);
  const std::string right = write_operand(*node.right, node.operation, true);
  return fmt::format("{} {} {}", left, node.operation == '*' ? "×" : std::string(1, node.operation), right);
}

int64_t apply(char operation, int64_t a, int64_t b) {
  return operation == '+' ? a + b : operation == '-' ? a - b : a * b;
}

// The leftmost operation on two numbers.
Node* next_operation(Node& node) {
  if (node.operation == 0) return nullptr;
  if (Node* inner = next_operation(*node.left)) return inner;
  if (Node* inner = next_operation(*node.right)) return inner;
  return &node;
}

// Each operation must be one that can be done at once: tables up to 12, sums in the hundreds, and no negative number
// before the end.
bool easy(const Node& operation, bool last) {
  const int64_t a = operation.left->value, b = operation.right->value;
  if (operation.operation == '*') return (a <= 12 && b <= 12) || a == 10 || b == 10;
  return operation.operation == '+' || last || a >= b;
}

struct Worked {
  std::string problem, reasoning;
  int64_t value = 0;
  bool easy = true;
};

Worked work(Node& root) {
  Worked worked{.problem = write(root), .reasoning = write(root) + "\n"};
  while (Node* operation = next_operation(root)) {
    worked.easy = worked.easy && easy(*operation, operation == &root);
    worked.reasoning += write(*operation);
    // Only at the end, where no bracket could follow it (`easy`).
    const bool negative = operation->operation == '-' && operation->left->value < operation->right->value;
    if (negative) worked.reasoning += fmt::format(" = -({} - {})", operation->right->value, operation->left->value);
    operation->value = apply(operation->operation, operation->left->value, operation->right->value);
    operation->operation = 0;
    worked.reasoning += fmt::format(" = {}", operation->value);
    worked.reasoning += root.operation == 0 ? "\n" : fmt::format(", left {}\n", write(root));
  }
  worked.value = root.value;
  worked.reasoning += fmt::format("So {}.", worked.value);
  return worked;
}

}  // namespace

Question draw_expression(Draw& draw) {
  const Worked worked = draw.fitting([&] {
    while (true) {
      const int64_t operations = draw.random.between(2, 3);
      Worked drawn = work(*draw_tree(draw.random, operations));
      if (drawn.easy) return drawn;
    }
  });
  Question question = asked(worked.problem, draw.phrase(kAsk, worked.problem));
  question.reasoning = worked.reasoning;
  question.answer = fmt::format("{} = {}.", worked.problem, worked.value);
  question.expected = number_expected(worked.value);
  return question;
}

}  // namespace fathom
