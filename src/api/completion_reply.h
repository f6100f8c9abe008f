// POST /v1/completions: how its answer is worded.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/api_call.h"

namespace fathom {

struct CompletionSettings {
  std::vector<std::vector<int32_t>> prompts;
  // What the text begins with, for each prompt: all its tokens, without the mark of the beginning. Empty: nothing, and no
  // log-probabilities of it.
  std::vector<std::string> echoes;
  int64_t choices = 1;  // of each prompt
  bool logprobs = false;
  bool nothing_new = false;  // no tokens were asked for: the one that the engine makes is not shown
  bool include_usage = false;
};

std::unique_ptr<ApiReply> make_completion_reply(const ApiContext& context, CompletionSettings settings);

}  // namespace fathom
