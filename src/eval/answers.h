// Asking a model, and what is kept of each answer.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "eval/batch_generator.h"
#include "eval/settings.h"
#include "text/chat.h"
#include "text/chat_parser.h"

namespace fathom {

// One answer, graded: what the tables and comparisons are made of.
struct EvalAnswer {
  std::string question, task;  // EvalQuestion::id
  bool thinking = false;
  int64_t sample = 0;
  int64_t length = 0;  // of look-ups; else 0
  double depth = 0;
  bool correct = false;
  bool cut = false;                        // at the longest length
  bool answered = false;                   // there is a text, or a tool call, after the reasoning
  int64_t calls = 0, malformed_calls = 0;  // malformed: broken off, or arguments that are no JSON object
  int64_t prompt_tokens = 0, tokens = 0;   // tokens: of the answer, with its reasoning and its end
};
template <typename Visitor>
void fields(Visitor& v, EvalAnswer& a) {  // engine/json_members.h
  v("question", a.question);
  v("task", a.task);
  v("thinking", a.thinking);
  v("sample", a.sample);
  v("length", a.length);
  v("depth", a.depth);
  v("correct", a.correct);
  v("cut", a.cut);
  v("answered", a.answered);
  v("calls", a.calls);
  v("malformed_calls", a.malformed_calls);
  v("prompt_tokens", a.prompt_tokens);
  v("tokens", a.tokens);
}

// What the model is given: as `fathom chat` writes it.
Result<ChatPrompt> render_question(const Engine& engine, const Question& question, bool thinking);

// Which answers of two runs belong together: the question in the same mode. Unique in a run.
std::string answer_key(std::string_view question, bool thinking, int64_t sample);
inline std::string answer_key(const EvalAnswer& a) { return answer_key(a.question, a.thinking, a.sample); }

// The answer with its words, for people who want to know what went wrong.
struct AnswerText {
  std::string reasoning, content;
  std::vector<ToolCall> calls;
  std::string why;  // it is not correct
};

// What is to be said of a reply, whole or cut: correct, answered, calls and malformed_calls are set. An answer with a
// malformed call is not correct.
AnswerText grade_reply(const Question& question, const ChatReply& reply, EvalAnswer& answer);

// Asks as `fathom chat` does (chat template, tools, parser of answers) and grades, `width` at a time; on_answer gets
// each answer once it is complete. Draws follow from the seed, the question, the mode and the sample. Stops early when
// `cancel` is set; the answers under way are lost then. Errors: a question longer than the context, those of on_answer.
Result<BatchCounts> answer_questions(Engine& engine, const EvalSettings& settings,
                                     std::span<const EvalQuestion> questions, std::span<const Ask> asks, int64_t width,
                                     const std::function<Status(const EvalAnswer&, const AnswerText&)>& on_answer,
                                     const std::atomic<bool>& cancel);

}  // namespace fathom
