// fathom tasks: the synthetic tasks, and questions of them to read or to keep.
#include <fmt/format.h>

#include <memory>
#include <string>

#include "base/text_lines.h"
#include "cli/command.h"
#include "tasks/library.h"
#include "tasks/mix.h"

namespace fathom {

namespace {

struct TasksOptions {
  std::string task, split = "train", model;
  int64_t count = 1, length = 0, max_length = TaskOptions{}.max_length;
  double depth = -1;
  uint64_t seed = 1;
  bool thinking = false, json = false, mix = false;
};

std::string listed_tasks() {
  std::string out;
  for (const TaskInfo& task : task_list()) append_line(out, "{:<20}{}", task.name, task.description);
  return out;
}

Json call_json(const ToolCall& call) {
  return {{"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

Json message_json(const Message& message) {
  Json json = {{"role", role_name(message.role)}, {"content", message.content}};
  if (!message.reasoning_content.empty()) json["reasoning_content"] = message.reasoning_content;
  for (const ToolCall& call : message.tool_calls) json["tool_calls"].push_back(call_json(call));
  return json;
}

Message answer_of(const Question& question, bool thinking) {
  return {.role = Role::kAssistant,
          .content = question.answer,
          .reasoning_content = thinking ? question.reasoning : "",
          .tool_calls = question.calls};
}

// A line of JSON: messages and tools in the form of the OpenAI API, the answer included.
std::string json_line(const Question& question, bool thinking) {
  Json json = {{"task", question.task}, {"messages", Json::array()}};
  for (const Message& message : question.messages) json["messages"].push_back(message_json(message));
  json["messages"].push_back(message_json(answer_of(question, thinking)));
  for (const Tool& tool : question.tools) {
    json["tools"].push_back({{"type", "function"}, {"function", tool.definition}});
  }
  json["expected"] = question.expected.values;
  if (question.length > 0) {
    json["length"] = question.length;
    json["depth"] = question.depth;
  }
  return json.dump() + "\n";
}

std::string for_people(const Question& question, bool thinking) {
  std::string out;
  for (const Tool& tool : question.tools) append_line(out, "[tool] {}: {}", tool.name, tool.description);
  std::vector<Message> messages = question.messages;
  messages.push_back(answer_of(question, thinking));
  for (const Message& message : messages) {
    if (!message.reasoning_content.empty()) append_line(out, "[thinking] {}", message.reasoning_content);
    if (!message.content.empty()) append_line(out, "[{}] {}", role_name(message.role), message.content);
    for (const ToolCall& call : message.tool_calls) append_line(out, "[call] {} {}", call.name, call.arguments);
  }
  return out + "\n";
}

Status write_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size()) return {};
  return fail("cannot write to stdout");
}

Result<int> print_questions(const TasksOptions& options) {
  if (options.task.empty() && !options.mix) {
    FATHOM_RETURN_IF_ERROR(write_out(listed_tasks()));
    return 0;
  }
  std::unique_ptr<Tokenizer> tokenizer;
  if (!options.model.empty()) {
    FATHOM_TRY(tokenizer, Tokenizer::load(options.model));
  }
  const Split split = options.split == "train" ? Split::kTrain : Split::kHeldOut;
  TaskOptions wanted{
      .length = options.length, .max_length = options.max_length, .depth = options.depth, .tokenizer = tokenizer.get()};
  FATHOM_TRY(const TaskMix mix, TaskMix::create({.seed = options.seed, .split = split, .tasks = wanted}));
  for (int64_t i = 0; i < options.count; ++i) {
    const auto number = static_cast<uint64_t>(i);
    Question question;
    bool thinking = options.thinking;
    if (options.mix) {
      FATHOM_TRY(Example example, mix.example(number));
      question = std::move(example.question);
      thinking = example.thinking;
    } else {
      FATHOM_TRY(question, make_question(options.task, options.seed + number, split, wanted));
    }
    FATHOM_RETURN_IF_ERROR(write_out(options.json ? json_line(question, thinking) : for_people(question, thinking)));
  }
  return 0;
}

}  // namespace

void add_tasks(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<TasksOptions>();
  CLI::App* command = app.add_subcommand("tasks", "List the synthetic tasks, or print questions with their answers");
  command->footer(
      "Without --task and --mix: the list of tasks. The same seed gives the same questions everywhere; what is held\n"
      "out is never among what is trained on.\n\n"
      "  fathom tasks --task add --count 3 --thinking\n"
      "  fathom tasks --task lookup --length 500 --depth 0.5 --split held-out\n"
      "  fathom tasks --mix --count 1000 --json > examples.jsonl");
  CLI::Option* task = command->add_option("--task", options->task, "Questions of this task")->type_name("NAME");
  command->add_flag("--mix", options->mix, "Examples as they are trained on: all tasks, some with several turns")
      ->excludes(task);
  command->add_option("--count", options->count, "How many")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Of the first question; the others follow")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--split", options->split, "train or held-out")
      ->check(CLI::IsMember({"train", "held-out"}))
      ->type_name("NAME")
      ->capture_default_str();
  command->add_flag("--thinking", options->thinking, "With the reasoning")->excludes("--mix");
  command->add_option("--length", options->length, "Of texts to look something up in; 0: drawn")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
  command->add_option("--max-length", options->max_length, "Longest length that is drawn")
      ->check(CLI::PositiveNumber)
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--depth", options->depth, "Where the fact stands in it, 0 to 1; default: drawn")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X");
  command->add_option("--model", options->model, "Count --length in tokens of this tokenizer, otherwise in bytes")
      ->type_name("DIR");
  command->add_flag("--json", options->json, "A line of JSON for each, with messages in the form of the OpenAI API");
  command->callback(
      [options, &context] { context.action = [options] { return exit_code(print_questions(*options)); }; });
}

}  // namespace fathom
