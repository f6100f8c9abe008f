#include "eval/answers.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/check.h"
#include "tasks/random.h"

namespace fathom {

namespace {

// An answer that comes in, taken apart.
struct Reading {
  Reading(ChatFormat format, bool starts_in_reasoning) : parser(format, starts_in_reasoning) {}

  void add(const std::vector<ChatEvent>& events) {
    for (const ChatEvent& event : events) reply.add(event);
  }

  ChatParser parser;
  ChatReply reply;
};

bool is_json_object(const std::string& text) { return nlohmann::json::parse(text, nullptr, false).is_object(); }

bool malformed(const ChatReply::Call& call) { return !call.complete || !is_json_object(call.arguments); }

class Examiner {
 public:
  Examiner(Engine& engine, const EvalSettings& settings, std::span<const EvalQuestion> questions,
           std::span<const Ask> asks, const std::function<Status(const EvalAnswer&, const AnswerText&)>& on_answer)
      : engine_(engine), settings_(settings), questions_(questions), asks_(asks), on_answer_(on_answer) {}

  Result<std::optional<BatchItem>> next() {
    if (next_ == asks_.size()) return std::nullopt;
    const Ask& ask = asks_[next_++];
    const EvalQuestion& asked = questions_[ask.question];
    FATHOM_TRY(const ChatPrompt prompt, render_question(engine_, asked.question, ask.thinking));
    BatchItem request;
    FATHOM_TRY(request.generation.prompt, engine_.tokenizer().encode(prompt.text));
    request.generation.max_tokens = settings_.max_tokens;
    request.generation.sampling = {.temperature = settings_.temperature, .top_p = settings_.top_p};
    request.generation.sampling.seed =
        mix_bits(settings_.seed ^ hash_text(answer_key(asked.id, ask.thinking, ask.sample)));
    const auto reading = std::make_shared<Reading>(engine_.chat_format(), prompt.starts_in_reasoning);
    request.on_text = [reading](std::string_view text) { reading->add(reading->parser.push(text)); };
    request.on_done = [this, reading, ask](const GenerationResult& result) {
      reading->add(reading->parser.finish());
      return done(ask, result, reading->reply);
    };
    return request;
  }

 private:
  Status done(const Ask& ask, const GenerationResult& result, const ChatReply& reply) {
    if (result.finish == FinishReason::kFailed) return fail("{}", kFailedAnswer);
    const EvalQuestion& asked = questions_[ask.question];
    EvalAnswer answer{.question = asked.id, .task = asked.question.task};
    answer.thinking = ask.thinking;
    answer.sample = ask.sample;
    answer.length = asked.length;
    answer.depth = asked.depth;
    answer.cut = result.finish == FinishReason::kLength;
    answer.prompt_tokens = result.prompt_tokens;
    answer.tokens = static_cast<int64_t>(result.tokens.size());
    const AnswerText text = grade_reply(asked.question, reply, answer);
    return on_answer_(answer, text);
  }

  Engine& engine_;
  const EvalSettings& settings_;
  std::span<const EvalQuestion> questions_;
  std::span<const Ask> asks_;
  const std::function<Status(const EvalAnswer&, const AnswerText&)>& on_answer_;
  size_t next_ = 0;
};

}  // namespace

Result<ChatPrompt> render_question(const Engine& engine, const Question& question, bool thinking) {
  return render_chat_prompt(engine.chat_format(), question.messages, question.tools, {.thinking = thinking});
}

std::string answer_key(std::string_view question, bool thinking, int64_t sample) {
  return fmt::format("{} {} {}", question, thinking ? "thinking" : "direct", sample);
}

AnswerText grade_reply(const Question& question, const ChatReply& reply, EvalAnswer& answer) {
  AnswerText text{.reasoning = reply.reasoning, .content = reply.content, .calls = {}, .why = {}};
  for (const ChatReply::Call& call : reply.calls) text.calls.push_back({"", call.name, call.arguments});
  answer.answered = !reply.calls.empty() || reply.content.find_first_not_of(" \n\t") != std::string::npos;
  answer.calls = static_cast<int64_t>(reply.calls.size());
  answer.malformed_calls = std::ranges::count_if(reply.calls, malformed);
  Grade grade = fathom::grade(question, text.content, text.calls);
  // A call that broke off is no call, whatever it says so far.
  if (answer.malformed_calls > 0) grade = {.correct = false, .why = "a malformed tool call"};
  answer.correct = grade.correct;
  text.why = std::move(grade.why);
  return text;
}

Result<BatchCounts> answer_questions(Engine& engine, const EvalSettings& settings,
                                     std::span<const EvalQuestion> questions, std::span<const Ask> asks, int64_t width,
                                     const std::function<Status(const EvalAnswer&, const AnswerText&)>& on_answer,
                                     const std::atomic<bool>& cancel) {
  Examiner examiner(engine, settings, questions, asks, on_answer);
  return generate_batch(
      engine, width, [&] { return examiner.next(); }, cancel);
}

}  // namespace fathom
