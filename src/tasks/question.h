// A question with its right answer, and how an answer to it is graded.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace fathom {

// What a model is trained on, and what it is tested on. A hash of the problem decides which of the two it belongs to,
// one in eight is held out; so no problem is ever in both, whatever the seeds (split_of).
enum class Split { kTrain, kHeldOut };

// What is right, apart from how it is said.
struct Expected {
  enum class Form {
    kNumber,      // the one number of the answer, or the one to the right of its last "="
    kNumberList,  // these numbers in this order, and no other
    kText,        // the answer ends with this, after a word like "is"
    kTextSet,     // these, in any order, and no other like them
    kSentence,    // the reference answer, whatever its case and punctuation
    kCalls,       // the tool calls; arguments are compared as JSON
  };
  Form form = Form::kNumber;
  std::vector<std::string> values{};
};

struct Question {
  std::string task;
  std::vector<Message> messages{};  // up to where the answer is asked for
  std::vector<Tool> tools{};
  std::string reasoning{};        // worked, for thinking mode; its last line begins with "So"
  std::string answer{};           // what is shown, without reasoning
  std::vector<ToolCall> calls{};  // where the right answer is a tool call; the answer is empty then
  Expected expected{};
  std::string problem{};  // canonical: the same for the same problem in other words. What split_of decides by
  int64_t length = 0;     // look-up: tokens of the messages (bytes without a tokenizer), otherwise 0
  double depth = 0;       // look-up: where in the text the first fact asked for stands, 0 at the beginning, 1 at the end
};

Split split_of(std::string_view problem);

struct Grade {
  bool correct = false;
  std::string why;  // what was found and expected, when it is not correct
};

// answer: the visible text. A right value in another form is wrong where the form was asked for, and so is a right one
// among others. Any text is graded in time that grows with its length.
Grade grade(const Question& question, std::string_view answer, std::span<const ToolCall> calls);

}  // namespace fathom
