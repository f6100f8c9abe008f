// Questions of every kind for the small model, and what their answers say, streamed or not, in one form: so that any two answers
// to a question can be compared.
#pragma once

#include <fmt/format.h>

#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "cli/server_process.h"
#include "support/random.h"

namespace fathom::test {

enum class Api { kChat, kCompletions, kMessages, kResponses };

struct Asked {
  Api api;
  Json body;

  std::string request(bool stream) const {
    constexpr const char* kPaths[] = {"/v1/chat/completions", "/v1/completions", "/anthropic/v1/messages",
                                      "/v1/responses"};
    Json sent = body;
    sent["stream"] = stream;
    if (stream && (api == Api::kChat || api == Api::kCompletions)) sent["stream_options"] = {{"include_usage", true}};
    return http_post(kPaths[static_cast<size_t>(api)], sent);
  }
};

// --- what answers say

namespace asked {

// Appends to a text that may not be there yet.
inline void append(Json& object, const char* name, const Json& from) {
  if (!from.contains(name) || !from[name].is_string()) return;
  if (object.is_null()) object = Json::object();
  object[name] = object.value(name, "") + from[name].get<std::string>();
}

// One part (a message, a delta, a choice of a completion) into what is known of its choice.
inline void add_part(Json& choice, const Json& part) {
  for (const char* name : {"content", "reasoning_content", "text"}) append(choice, name, part);
  if (!part.contains("tool_calls") || !part["tool_calls"].is_array()) return;
  for (size_t i = 0; i < part["tool_calls"].size(); ++i) {
    const Json& call = part["tool_calls"][i];
    Json& known = choice["calls"][call.value("index", i)];
    append(known, "name", call["function"]);
    append(known, "arguments", call["function"]);
  }
}

inline void add_choices(Json& choices, const Json& body) {
  for (const Json& from : body["choices"]) {
    Json& choice = choices[from["index"].get<size_t>()];
    if (choice.is_null()) choice = {{"content", ""}, {"reasoning_content", ""}, {"text", ""}};
    for (const char* part : {"message", "delta"})
      if (from.contains(part)) add_part(choice, from[part]);
    add_part(choice, from);
    if (from.contains("finish_reason") && !from["finish_reason"].is_null()) choice["finish"] = from["finish_reason"];
  }
}

// Of OpenAI's usage: what does not depend on the cache.
inline Json counted(const Json& usage) {
  Json counts;
  for (const char* name : {"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"})
    if (usage.contains(name)) counts[name] = usage[name];
  return counts;
}

inline Json of_message(const Json& message) {
  Json said{{"stop", message["stop_reason"]}, {"tokens", message["usage"]["output_tokens"]}};
  for (const Json& block : message["content"]) {
    Json& kept = said["blocks"].emplace_back(Json{{"type", block["type"]}});
    for (const char* name : {"text", "thinking", "name", "input"})
      if (block.contains(name)) kept[name] = block[name];
  }
  return said;
}

inline Json of_response(const Json& response) {
  Json said{{"status", response["status"]}, {"usage", counted(response["usage"])}};
  for (const Json& item : response["output"]) {
    Json& kept = said["items"].emplace_back(Json{{"type", item["type"]}});
    for (const char* name : {"content", "name", "arguments"})
      if (item.contains(name)) kept[name] = item[name];
  }
  return said;
}

// The data of a stream's events. Throws where a byte of it is neither an event nor a comment, or where the end is missing.
inline std::vector<std::string> events(std::string_view stream) {
  std::vector<std::string> all;
  while (!stream.empty()) {
    const size_t end = stream.find("\n\n");
    if (end == std::string_view::npos) throw std::runtime_error("the stream ends within an event");
    std::string_view event = stream.substr(0, end);
    stream.remove_prefix(end + 2);
    if (event.starts_with(":")) continue;
    if (event.starts_with("event: ")) event.remove_prefix(event.find('\n') + 1);
    if (!event.starts_with("data: ")) throw std::runtime_error(fmt::format("no event: {}", event));
    all.emplace_back(event.substr(6));
  }
  return all;
}

inline Json of_message_stream(const std::vector<std::string>& data) {
  Json message;
  for (const std::string& text : data) {
    const Json event = Json::parse(text);
    const std::string type = event["type"];
    if (type == "message_start") {
      message = event["message"];
    } else if (type == "content_block_start") {
      message["content"][event["index"].get<size_t>()] = event["content_block"];
    } else if (type == "content_block_delta") {
      Json& block = message["content"][event["index"].get<size_t>()];
      append(block, "text", event["delta"]);
      append(block, "thinking", event["delta"]);
      append(block, "partial_json", event["delta"]);
    } else if (type == "message_delta") {
      message["stop_reason"] = event["delta"]["stop_reason"];
      message["usage"]["output_tokens"] = event["usage"]["output_tokens"];
    }
  }
  if (data.empty() || Json::parse(data.back())["type"] != "message_stop") throw std::runtime_error("no message_stop");
  for (Json& block : message["content"])
    if (block["type"] == "tool_use") {
      const Json input = Json::parse(block.value("partial_json", ""), nullptr, false);
      block["input"] = input.is_object() ? input : Json::object();  // one that was cut off
    }
  return of_message(message);
}

inline Json of_stream(Api api, std::string_view stream) {
  std::vector<std::string> data = events(stream);
  if (api == Api::kMessages) return of_message_stream(data);
  if (api == Api::kResponses) {
    if (data.empty()) throw std::runtime_error("no events");
    return of_response(Json::parse(data.back())["response"]);
  }
  if (data.empty() || data.back() != "[DONE]") throw std::runtime_error("no [DONE]");
  data.pop_back();
  Json choices, usage;
  for (const std::string& text : data) {
    const Json chunk = Json::parse(text);
    add_choices(choices, chunk);
    if (chunk.contains("usage") && !chunk["usage"].is_null()) usage = counted(chunk["usage"]);
  }
  return {{"choices", choices}, {"usage", usage}};
}

}  // namespace asked

// What an answer says: texts, calls, how it ended, what it counts. What is no whole answer says what it is instead.
inline std::string said_by(const Asked& question, bool stream, const RawAnswer& answer) {
  if (answer.status == 0) return "no answer";
  if (answer.status != 200) return fmt::format("{}: {}", answer.status, answer.body);
  try {
    if (stream) return asked::of_stream(question.api, answer.body).dump();
    const Json body = Json::parse(answer.body);
    if (question.api == Api::kMessages) return asked::of_message(body).dump();
    if (question.api == Api::kResponses) return asked::of_response(body).dump();
    Json choices;
    asked::add_choices(choices, body);
    return Json{{"choices", choices}, {"usage", asked::counted(body["usage"])}}.dump();
  } catch (const std::exception& error) {
    return fmt::format("{}: {}", error.what(), answer.body);
  }
}

// --- questions

namespace asked {

inline std::string words(TestRandom& random, int64_t count) {
  constexpr const char* kWords[] = {"amber", "river", "seven",  "larger", "field", "number",
                                    "under", "stone", "winter", "paper",  "green", "follow"};
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += fmt::format("{} ", kWords[random.below(std::size(kWords))]);
  return text;
}

inline std::string sum(TestRandom& random) {
  return fmt::format("What is {} + {}?", random.below(10000), random.below(10000));
}

}  // namespace asked

// Any of twelve kinds; their prompts have up to some thousand tokens, and half of them a beginning that they share.
inline Asked make_question(int64_t kind, TestRandom& random) {
  using namespace asked;
  TestRandom same(7);
  const std::string shared = words(same, 300);
  const Json parameters = Json::parse(R"({"type": "object", "required": ["operation", "a", "b"], "properties": {
    "operation": {"type": "string", "enum": ["add", "subtract", "multiply", "divide"]},
    "a": {"type": "number"}, "b": {"type": "number"}}})");
  const Json user{{"role", "user"}, {"content", sum(random)}}, system{{"role", "system"}, {"content", shared}};
  const Json schema = Json::parse(R"({"type": "object", "additionalProperties": false, "required": ["sum", "steps"],
    "properties": {"sum": {"type": "integer"}, "steps": {"type": "array", "items": {"type": "string", "maxLength": 12},
    "maxItems": 3}}})");
  Asked q{Api::kChat, {{"model", "nano"}, {"temperature", 0.8}, {"seed", random.below(1000)}}};
  Json& body = q.body;
  switch (kind % 12) {
    case 0:
      body.update({{"messages", Json::array({user})}, {"max_tokens", 40}});
      break;
    case 1:
      body.update({{"messages", {system, user}}, {"max_tokens", 150}, {"thinking", {{"type", "enabled"}}}});
      break;
    case 2:
      body.update({{"messages", Json::array({user})}, {"max_tokens", 30}, {"n", 4}});
      break;
    case 3:
      body.update({{"messages", Json::array({user})}, {"max_tokens", 80}, {"tool_choice", "required"}});
      body["tools"] =
          Json::array({{{"type", "function"},
                        {"function", {{"name", "calculator"}, {"parameters", parameters}, {"strict", true}}}}});
      break;
    case 4:
      body.update({{"messages", {system, user}}, {"max_tokens", 120}});
      body["response_format"] = {{"type", "json_schema"}, {"json_schema", {{"name", "sum"}, {"schema", schema}}}};
      break;
    case 5:
      body.update(
          {{"messages", Json::array({user})}, {"max_tokens", 60}, {"response_format", {{"type", "json_object"}}}});
      break;
    case 6:
      q.api = Api::kCompletions;
      body.update({{"prompt", shared + sum(random)}, {"max_tokens", 60}, {"stop", {"ar", "."}}, {"ignore_eos", true}});
      break;
    case 7:
      q.api = Api::kCompletions;
      body.update({{"prompt", {sum(random), words(random, 20), shared}}, {"max_tokens", 25}, {"n", 2}, {"echo", true}});
      break;
    case 8:  // long
      q.api = Api::kCompletions;
      body.update({{"prompt", words(random, 200 + random.below(2000))}, {"max_tokens", 20}, {"ignore_eos", true}});
      break;
    case 9:
      q.api = Api::kMessages;
      body.update({{"messages", Json::array({user})}, {"system", shared}, {"max_tokens", 100}});
      if (random.below(2)) body["thinking"] = {{"type", "enabled"}, {"budget_tokens", 1024}};
      break;
    case 10:
      q.api = Api::kMessages;
      body.update({{"messages", Json::array({user})}, {"max_tokens", 100}});
      body["tools"] = Json::array({{{"name", "calculator"}, {"input_schema", parameters}}});
      body["tool_choice"] = {{"type", "any"}};
      break;
    default:
      q.api = Api::kResponses;
      body.update({{"input", sum(random)}, {"instructions", shared}, {"max_output_tokens", 80}});
      body["reasoning"] = {{"effort", random.below(2) ? "high" : "none"}};
  }
  return q;
}

}  // namespace fathom::test
