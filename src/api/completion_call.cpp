// POST /v1/completions: what is asked for.
#include <algorithm>
#include <limits>
#include <utility>

#include "api/api_call.h"
#include "api/body.h"
#include "api/completion_reply.h"
#include "api/request_parts.h"
#include "base/check.h"
#include "text/chat_tokens.h"
#include "text/stream_decoder.h"

namespace fathom {

namespace {

constexpr size_t kMostPrompts = 512;
constexpr int64_t kMostAnswers = 1024, kDefaultTokens = 16;

// A prompt as it was given: text, or tokens.
struct Prompt {
  const std::string* text = nullptr;
  std::vector<int32_t> tokens{};
};

std::optional<std::vector<int32_t>> read_tokens(const Json& list, const Engine& engine, Body& body) {
  std::vector<int32_t> tokens;
  const int64_t vocabulary = engine.config().vocab_size;
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id >= vocabulary) {
      body.wrong("prompt", id, fmt::format("token ids from 0 to {}", vocabulary - 1));
      return std::nullopt;
    }
    tokens.push_back(id.get<int32_t>());
  }
  return tokens;
}

// A text, a list of tokens, or a list of either. At least one, unless there is an error.
std::vector<Prompt> read_prompts(Body& body, const Engine& engine) {
  const Json* prompt = body.find("prompt");
  std::vector<Prompt> prompts;
  const auto add = [&](const Json& one) {
    if (one.is_string()) {
      prompts.push_back({.text = &one.get_ref<const std::string&>()});
    } else if (one.is_array()) {
      if (auto tokens = read_tokens(one, engine, body)) prompts.push_back({.tokens = *std::move(tokens)});
    } else {
      body.wrong("prompt", one, "a text, a list of token ids, or a list of either");
    }
  };
  if (!prompt) {
    body.fault(400, "prompt", "missing, expected a text, a list of token ids, or a list of either");
  } else if (!prompt->is_array() || (!prompt->empty() && prompt->front().is_number())) {
    add(*prompt);
  } else if (prompt->empty() || prompt->size() > kMostPrompts) {
    body.fault(422, "prompt", fmt::format("found {} prompts, expected 1 to {}", prompt->size(), kMostPrompts));
  } else {
    for (const Json& one : *prompt) {
      if (body.error()) break;
      add(one);
    }
  }
  return prompts;
}

// The marks around what is before and after the gap, each one token (DeepSeek-V3 report, §2.2: prefix, suffix, middle).
struct MiddleMarks {
  int32_t begin = 0, hole = 0, end = 0;
};

std::optional<MiddleMarks> middle_marks(const Tokenizer& tokenizer) {
  const auto begin = tokenizer.id_of(chat_tokens::kFimBegin), hole = tokenizer.id_of(chat_tokens::kFimHole),
             end = tokenizer.id_of(chat_tokens::kFimEnd);
  if (!begin || !hole || !end) return std::nullopt;
  return MiddleMarks{*begin, *hole, *end};
}

Result<std::vector<int32_t>> tokens_of(Prompt prompt, const std::string* suffix, bool begin_mark,
                                       const Tokenizer& tokenizer) {
  std::vector<int32_t> tokens = std::move(prompt.tokens);
  if (prompt.text) {
    FATHOM_TRY(tokens, tokenizer.encode(*prompt.text));
  }
  const auto first = tokenizer.id_of(chat_tokens::kBeginOfSentence);
  const bool marked = first && !tokens.empty() && tokens.front() == *first;
  if (suffix) {
    const auto marks = middle_marks(tokenizer);
    FATHOM_CHECK(marks, "a suffix that was accepted");
    FATHOM_TRY(const std::vector<int32_t> after, tokenizer.encode(*suffix));
    tokens.insert(tokens.begin() + marked, marks->begin);
    tokens.push_back(marks->hole);
    tokens.insert(tokens.end(), after.begin(), after.end());
    tokens.push_back(marks->end);
  }
  if (prompt.text && begin_mark && first && !marked) tokens.insert(tokens.begin(), *first);
  return tokens;
}

// Without the mark of the beginning. Valid UTF-8, whatever the tokens.
std::string text_of(const std::vector<int32_t>& tokens, const Tokenizer& tokenizer) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (size_t i = tokens.front() == tokenizer.id_of(chat_tokens::kBeginOfSentence); i < tokens.size(); ++i)
    text += decoder.push(tokens[i]);
  return text + decoder.finish();
}

}  // namespace

ApiResult<ApiCall> read_completion_call(const Json& json, const ApiContext& context) {
  FATHOM_RETURN_IF_ERROR(check_is_object(json));
  const Engine& engine = context.engine;
  Body body(json);
  body.text("model");
  std::vector<Prompt> prompts = read_prompts(body, engine);
  BatchRequest batch;
  GenerationRequest& generation = batch.generation;
  generation.sampling = read_sampling(body, engine.default_sampling());
  generation.stop = read_stops(body, "stop");
  generation.stop_tokens = read_stop_tokens(body, engine);
  generation.ignore_eos = body.boolean("ignore_eos", false);
  const int64_t longest = body.integer("max_tokens", 0, std::numeric_limits<int64_t>::max()).value_or(kDefaultTokens);
  // The token after the prompt costs nothing, and is not shown.
  generation.max_tokens = std::max<int64_t>(longest, 1);
  const auto logprobs = body.integer("logprobs", 0, kMostTopLogprobs);
  generation.logprobs = logprobs.has_value();
  generation.top_logprobs = logprobs.value_or(0);
  batch.choices = body.integer("n", 1, kMostChoices).value_or(1);
  batch.priority = body.integer("priority", -100, 100).value_or(0);
  const int64_t best_of = body.integer("best_of", 1, kMostChoices).value_or(batch.choices);
  if (best_of != batch.choices)
    body.fault(422, "best_of",
               fmt::format("found {}, expected the same as n, {}: all answers are given back", best_of, batch.choices));
  if (static_cast<int64_t>(prompts.size()) * batch.choices > kMostAnswers)
    body.fault(422, "n",
               fmt::format("found {} prompts with {} answers each, expected at most {} answers", prompts.size(),
                           batch.choices, kMostAnswers));
  ApiCall call;
  call.stream = body.boolean("stream", false);
  const bool echo = body.boolean("echo", false), begin_mark = body.boolean("add_special_tokens", true);
  const std::string* suffix = body.text("suffix");
  if (suffix && suffix->empty()) suffix = nullptr;
  if (suffix && !middle_marks(engine.tokenizer()))
    body.fault(422, "suffix", "this model's vocabulary lacks the marks that filling in the middle takes");
  if (suffix && echo) body.fault(422, "echo", "found true, expected false beside a suffix");
  batch.prompt_logprobs = echo && generation.logprobs;
  if (call.stream && batch.prompt_logprobs)
    body.fault(422, "stream",
               "found true, expected false: log-probabilities of the prompt, which echo asks for, are "
               "not streamed");
  CompletionSettings settings{.prompts = {},
                              .echoes = {},
                              .choices = batch.choices,
                              .logprobs = generation.logprobs,
                              .nothing_new = longest == 0,
                              .include_usage = read_include_usage(body)};
  if (body.error()) return tl::unexpected(*body.error());

  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::string where = prompts.size() == 1 ? "prompt" : fmt::format("prompt[{}]", i);
    auto tokens = tokens_of(std::move(prompts[i]), suffix, begin_mark, engine.tokenizer());
    if (!tokens) return tl::unexpected(ApiError{400, fmt::format("{}: {}", where, tokens.error().message), "prompt"});
    BatchRequest& one = call.prompts.emplace_back(batch);
    one.generation.prompt = *std::move(tokens);
    if (const Status status = check_batch_request(engine, one); !status)
      return tl::unexpected(ApiError{400, fmt::format("{}: {}", where, status.error().message), "prompt",
                                     one.generation.prompt.empty() ? "" : "context_length_exceeded"});
    if (echo) settings.echoes.push_back(text_of(one.generation.prompt, engine.tokenizer()));
    settings.prompts.push_back(one.generation.prompt);
  }
  call.reply = make_completion_reply(context, std::move(settings));
  return call;
}

}  // namespace fathom
