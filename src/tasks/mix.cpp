#include "tasks/mix.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/quote.h"
#include "text/chat_tokens.h"

namespace fathom {

namespace {

// Sums of weights are drawn below with 32 bits.
constexpr int64_t kMaxWeight = 1'000'000;

Message answer_message(const Question& question) {
  return {.role = Role::kAssistant, .content = question.answer, .reasoning_content = {}, .tool_calls = question.calls};
}

Result<std::string> render(const Question& question, const std::vector<Message>& messages, const ChatOptions& options) {
  return render_chat(ChatFormat::kV31, messages, question.tools, options);
}

}  // namespace

Result<Example> render_example(Question question, bool thinking) {
  const bool after_result = !question.messages.empty() && question.messages.back().role == Role::kTool;
  Example example{.question = std::move(question), .thinking = thinking && !after_result};
  const Question& asked = example.question;
  FATHOM_TRY(const std::string plain, render(asked, asked.messages, {}));
  std::vector<Message> answered = asked.messages;
  answered.push_back(answer_message(asked));
  FATHOM_TRY(const std::string whole, render(asked, answered, {.add_generation_prompt = false}));
  FATHOM_CHECK(whole.starts_with(plain), "the template writes '{}' otherwise once it is answered", plain);
  example.completion = whole.substr(plain.size());
  example.prompt = plain;
  if (!example.thinking) return example;
  FATHOM_TRY(example.prompt, render(asked, asked.messages, {.thinking = true}));
  example.completion = fmt::format("{}{}{}", asked.reasoning, chat_tokens::kEndThink, example.completion);
  return example;
}

std::vector<TaskWeight> default_weights() {
  return {{"add", 10},
          {"subtract", 10},
          {"multiply", 10},
          {"expression", 8},
          {"compare", 4},
          {"min-max", 4},
          {"sort", 5},
          {"count-letters", 5},
          {"count-items", 3},
          {"count-words", 3},
          {"reverse", 5},
          {"upper-case", 3},
          {"first-last", 3},
          {"join", 3},
          {"nth-word", 3},
          {"remove-letter", 4},
          {"variables", 8},
          {"lookup", 6},
          {"lookup-multi-key", 8},
          {"lookup-multi-value", 4},
          {"lookup-several", 6},
          {"calculator", 4},
          {"calculator-result", 3},
          {"small-talk", 4}};
}

Result<TaskMix> TaskMix::create(MixOptions options) {
  int64_t total = 0;
  for (const TaskWeight& entry : options.weights) {
    if (find_task(entry.task) == nullptr) return fail("mix: there is no task {}", in_quotes(entry.task));
    if (entry.weight < 0 || entry.weight > kMaxWeight) {
      return fail("mix: weight {} of {}, expected 0 to {}", entry.weight, entry.task, kMaxWeight);
    }
    total += entry.weight;
  }
  if (total == 0) return fail("mix: no task has a weight above 0, expected at least one");
  for (const int percent : {options.thinking_percent, options.multi_turn_percent}) {
    if (percent < 0 || percent > 100) return fail("mix: {} percent, expected 0 to 100", percent);
  }
  FATHOM_RETURN_IF_ERROR(check_task_options(options.tasks));
  return TaskMix(std::move(options));
}

TaskMix::TaskMix(MixOptions options) : options_(std::move(options)) {
  for (const TaskWeight& entry : options_.weights) {
    const Share share{find_task(entry.task), entry.weight};
    if (share.weight == 0) continue;
    all_.push_back(share);
    if (!share.task->single_turn) follow_ups_.push_back(share);
  }
}

const TaskInfo& TaskMix::draw_task(TaskRandom& random, const std::vector<Share>& shares) {
  int64_t total = 0;
  for (const Share& share : shares) total += share.weight;
  int64_t at = random.below(total);
  size_t i = 0;
  while (at >= shares[i].weight) at -= shares[i++].weight;
  return *shares[i].task;
}

Result<Example> TaskMix::example(uint64_t index) const {
  TaskRandom random(options_.seed, index);
  const TaskInfo& task = draw_task(random, all_);
  const bool thinking = random.chance(options_.thinking_percent);
  const bool several = random.chance(options_.multi_turn_percent) && !task.single_turn;
  std::vector<Message> before;
  for (int64_t i = several ? random.between(1, 2) : 0; i > 0; --i) {
    const TaskInfo& earlier = draw_task(random, follow_ups_);
    FATHOM_TRY(Question question, make_question(earlier.name, random.bits(), options_.split, options_.tasks));
    before.insert(before.end(), question.messages.begin(), question.messages.end());
    before.push_back(answer_message(question));
  }
  FATHOM_TRY(Question question, make_question(task.name, random.bits(), options_.split, options_.tasks));
  question.messages.insert(question.messages.begin(), before.begin(), before.end());
  return render_example(std::move(question), thinking);
}

}  // namespace fathom
