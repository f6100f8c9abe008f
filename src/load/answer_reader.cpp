#include "load/answer_reader.h"

#include <cmath>
#include <utility>

#include "base/quote.h"

namespace fathom::load {

namespace {

const Json* member(const Json& json, std::string_view name) {
  if (!json.is_object()) return nullptr;
  const auto it = json.find(name);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

std::string_view text_member(const Json& json, std::string_view name) {
  const Json* value = member(json, name);
  return value && value->is_string() ? std::string_view(value->get_ref<const std::string&>()) : "";
}

void read_count(const Json& json, std::string_view name, std::optional<int64_t>& out) {
  const Json* value = member(json, name);
  // A count that no answer can have is none.
  if (value && value->is_number_unsigned() && value->get<uint64_t>() <= uint64_t{1} << 40) out = value->get<int64_t>();
}

std::string error_message(const Json& error) {
  const std::string_view message = text_member(error, "message");
  if (!message.empty()) return in_quotes(message);
  return in_quotes(error.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

std::string Failure::name() const {
  switch (kind) {
    case FailureKind::kConnect:
      return "no connection";
    case FailureKind::kTimeout:
      return "timeout";
    case FailureKind::kHttpStatus:
      return fmt::format("http {}", status);
    case FailureKind::kBrokenStream:
      return "broken stream";
    case FailureKind::kMalformedStream:
      return "malformed stream";
    case FailureKind::kErrorEvent:
      return "error event";
  }
  return "";
}

bool AnswerReader::feed(std::string_view bytes, double at_s) {
  events_.clear();
  const Status status = parser_.feed(bytes, events_);
  for (const SseEvent& event : events_) {
    if (failure_) break;
    read_event(event, at_s);
  }
  if (!status && !failure_) malformed(status.error().message);
  return !failure_ && !done_;
}

void AnswerReader::read_event(const SseEvent& event, double at_s) {
  if (done_) return deviates("data after [DONE]");
  if (event.data == "[DONE]") {
    done_ = true;
    return;
  }
  auto parsed = parse_json(event.data, "event");
  if (!parsed) return malformed(fmt::format("{}: {}", parsed.error().message, in_quotes(event.data)));
  const Json& chunk = *parsed;
  if (const Json* error = member(chunk, "error"); error || event.type == "error") {
    failure_ = {FailureKind::kErrorEvent, error_message(error ? *error : chunk)};
    return;
  }
  const Json* choices = member(chunk, "choices");
  const Json* usage = member(chunk, "usage");
  if (usage) read_usage(*usage);
  if (!choices || !choices->is_array())
    return malformed(fmt::format("event: found {}, expected an object with \"choices\"", in_quotes(event.data)));
  if (choices->empty() && !usage) deviates("chunk without choices or usage");
  for (const Json& choice : *choices) read_choice(choice, at_s);
}

void AnswerReader::read_choice(const Json& choice, double at_s) {
  const Json* index = member(choice, "index");
  const bool first = !index || *index == 0;
  bool token = false;
  const auto reasoned = [&](std::string_view text) {
    if (text.empty()) return;
    token = true;
    if (!answer_.first_reasoning_s) answer_.first_reasoning_s = at_s;
    if (first) answer_.reasoning += text;
  };
  const auto answered = [&](std::string_view text) {
    if (text.empty()) return;
    token = true;
    if (!answer_.first_answer_s) answer_.first_answer_s = at_s;
    if (first) answer_.text += text;
  };
  if (endpoint_ == Endpoint::kCompletions) {
    answered(text_member(choice, "text"));
  } else if (const Json* delta = member(choice, "delta")) {
    // Servers spell it one way or the other; some send both.
    const std::string_view reasoning = text_member(*delta, "reasoning_content");
    reasoned(reasoning.empty() ? text_member(*delta, "reasoning") : reasoning);
    answered(text_member(*delta, "content"));
    if (const Json* calls = member(*delta, "tool_calls"); calls && calls->is_array()) {
      for (const Json& call : *calls) {
        const Json* function = member(call, "function");
        if (!function) continue;
        answered(text_member(*function, "name"));
        answered(text_member(*function, "arguments"));
      }
    }
    if (!token && member(*delta, "role") && !member(choice, "finish_reason")) deviates("role without a token");
  }
  const std::string_view reason = text_member(choice, "finish_reason");
  if (!reason.empty() && first) answer_.finish_reason = reason;
  if (token) answer_.arrivals_s.push_back(at_s);
  if (token || !reason.empty()) answer_.last_s = at_s;
}

void AnswerReader::read_usage(const Json& json) {
  LoadUsage& usage = answer_.usage;
  read_count(json, "prompt_tokens", usage.prompt_tokens);
  read_count(json, "completion_tokens", usage.output_tokens);
  read_count(json, "prompt_cache_hit_tokens", usage.cached_tokens);
  if (const Json* details = member(json, "prompt_tokens_details"))
    read_count(*details, "cached_tokens", usage.cached_tokens);
  if (const Json* details = member(json, "completion_tokens_details"))
    read_count(*details, "reasoning_tokens", usage.reasoning_tokens);
  for (const char* name : {"cost_usd", "cost"}) {
    const Json* cost = member(json, name);
    if (!cost || !cost->is_number()) continue;
    const double usd = cost->get<double>();
    if (std::isfinite(usd) && usd >= 0) usage.cost_usd = usd;
    break;
  }
}

void AnswerReader::finish(bool whole, std::string_view how) {
  parser_.finish();
  answer_.keep_alives = parser_.comments();
  for (const SseFinding& finding : parser_.findings())
    answer_.deviations[std::string(name_of(finding.deviation))] += finding.count;
  if (failure_) return;
  if (!done_ && (!whole || answer_.finish_reason.empty())) {
    failure_ = {FailureKind::kBrokenStream,
                whole ? "the stream ended without a finish reason or [DONE]" : std::string(how)};
    return;
  }
  if (!whole) deviates("HTTP body not ended after [DONE]");
  if (!done_) deviates("no [DONE]");
  if (answer_.finish_reason.empty()) deviates("no finish reason");
}

}  // namespace fathom::load
