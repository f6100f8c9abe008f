#include "api/chat_request.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "text/chat_tokens.h"

namespace fathom {

namespace {

constexpr int64_t kMostChoices = 128, kMostStops = 16, kMostTopLogprobs = 20;

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

// The members of the body: each is read with what it may be; the first that is wrong is kept.
class Body {
 public:
  explicit Body(const Json& json) : json_(json) {}

  const Json* find(const char* name) const {
    const auto it = json_.find(name);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  bool boolean(const char* name, bool fallback) {
    const Json* value = find(name);
    if (value && !value->is_boolean()) wrong(name, *value, "true or false");
    return value && value->is_boolean() ? value->get<bool>() : fallback;
  }
  double number(const char* name, double least, double most, double fallback) {
    const Json* value = find(name);
    if (!value) return fallback;
    const double x = value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (x >= least && x <= most) return x;
    wrong(name, *value, fmt::format("a number from {:g} to {:g}", least, most));
    return fallback;
  }
  std::optional<int64_t> integer(const char* name, int64_t least, int64_t most) {
    const Json* value = find(name);
    if (!value) return std::nullopt;
    const bool fits = value->is_number_unsigned() ? value->get<uint64_t>() <= static_cast<uint64_t>(most)
                                                  : value->is_number_integer();
    if (fits && value->get<int64_t>() >= least && value->get<int64_t>() <= most) return value->get<int64_t>();
    wrong(name, *value, fmt::format("a whole number from {} to {}", least, most));
    return std::nullopt;
  }
  void wrong(const std::string& name, const Json& value, const std::string& expected) {
    fault(422, name, fmt::format("{}: found {}, expected {}", name, shown(value), expected));
  }
  void fault(int status, std::string param, std::string message, std::string code = {}) {
    if (!error_) error_ = ApiError{status, std::move(message), std::move(param), std::move(code)};
  }
  const std::optional<ApiError>& error() const { return error_; }

 private:
  const Json& json_;
  std::optional<ApiError> error_;
};

SamplingParams read_sampling(Body& body, const SamplingParams& defaults) {
  SamplingParams p = defaults;
  p.temperature = body.number("temperature", 0, 2, p.temperature);
  p.top_p = body.number("top_p", 0, 1, p.top_p);
  // 0 asks for the best token alone, in clients that say it so.
  if (p.top_p == 0) p.top_p = std::numeric_limits<double>::min();
  p.top_k = std::max<int64_t>(body.integer("top_k", -1, std::numeric_limits<int32_t>::max()).value_or(p.top_k), 0);
  p.min_p = body.number("min_p", 0, 1, p.min_p);
  p.presence_penalty = body.number("presence_penalty", -2, 2, p.presence_penalty);
  p.frequency_penalty = body.number("frequency_penalty", -2, 2, p.frequency_penalty);
  p.repetition_penalty = body.number("repetition_penalty", 0.01, 10, p.repetition_penalty);
  const auto seed = body.integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  p.seed = seed ? static_cast<uint64_t>(*seed) : (uint64_t{std::random_device()()} << 32) | std::random_device()();
  return p;
}

std::vector<std::string> read_stop(Body& body) {
  const Json* stop = body.find("stop");
  if (!stop) return {};
  constexpr const char* kExpected = "a text that is not empty, or a list of up to 16";
  std::vector<std::string> out;
  const auto add = [&](const Json& text) {
    if (text.is_string() && !text.get_ref<const std::string&>().empty())
      out.push_back(text.get<std::string>());
    else
      body.wrong("stop", text, kExpected);
  };
  if (!stop->is_array()) {
    add(*stop);
  } else if (stop->size() > kMostStops) {
    body.wrong("stop", stop->size(), kExpected);
  } else {
    for (const Json& text : *stop) add(text);
  }
  return out;
}

bool read_thinking(Body& body, const std::string& model) {
  bool thinking = model.ends_with("-reasoner");
  if (const Json* own = body.find("thinking")) {
    const Json* type = own->is_object() && own->contains("type") ? &own->at("type") : nullptr;
    if (type && (*type == "enabled" || *type == "disabled"))
      thinking = *type == "enabled";
    else
      body.wrong("thinking", *own, R"({"type": "enabled"} or {"type": "disabled"})");
  }
  if (const Json* arguments = body.find("chat_template_kwargs")) {
    const Json* own = arguments->is_object() && arguments->contains("thinking") ? &arguments->at("thinking") : nullptr;
    if (own && own->is_boolean())
      thinking = own->get<bool>();
    else if (own)
      body.wrong("chat_template_kwargs.thinking", *own, "true or false");
  }
  return thinking;
}

// Which tools may be called: "none", "auto", "required", or a function by its name.
struct ToolChoice {
  bool none = false, required = false;
  std::optional<std::string> name{};
};

ToolChoice read_tool_choice(Body& body, const std::vector<Tool>& tools) {
  const Json* choice = body.find("tool_choice");
  if (!choice || *choice == "auto") return {};
  if (*choice == "none") return {.none = true};
  if (tools.empty()) {
    body.fault(422, "tool_choice", "tool_choice: there are no tools to choose from");
    return {};
  }
  if (*choice == "required") return {.required = true};
  const Json* function = choice->is_object() && choice->contains("function") ? &choice->at("function") : nullptr;
  const Json* name = function && function->is_object() && function->contains("name") ? &function->at("name") : nullptr;
  if (!name || !name->is_string()) {
    body.wrong("tool_choice", *choice,
               R"("none", "auto", "required" or {"type": "function", "function": {"name": …}})");
    return {};
  }
  ToolChoice named{.required = true, .name = name->get<std::string>()};
  if (std::ranges::none_of(tools, [&](const Tool& tool) { return tool.name == *named.name; }))
    body.wrong("tool_choice.function.name", *name, "the name of one of the tools");
  return named;
}

bool is_strict(const Tool& tool) {
  const auto strict = tool.definition.find("strict");
  return strict != tool.definition.end() && strict->is_boolean() && strict->get<bool>();
}

// What the answer has to be; null: anything.
std::shared_ptr<const Grammar> read_grammar(Body& body, ChatFormat format, const std::vector<Tool>& tools,
                                            const ToolChoice& choice) {
  const auto made = [&](Result<std::shared_ptr<const Grammar>> grammar, const std::string& param) {
    if (!grammar) body.fault(422, param, fmt::format("{}: {}", param, grammar.error().message));
    return grammar ? *std::move(grammar) : nullptr;
  };
  const Json* response = body.find("response_format");
  const Json* type = response && response->is_object() && response->contains("type") ? &response->at("type") : nullptr;
  const bool structured = type && *type != "text";
  if (response && !(type && (*type == "text" || *type == "json_object" || *type == "json_schema"))) {
    body.wrong("response_format", *response,
               R"({"type": "text"}, {"type": "json_object"} or {"type": "json_schema", …})");
    return nullptr;
  }
  ToolCallOptions options{.optional = !choice.required, .parallel = body.boolean("parallel_tool_calls", true)};
  options.name = choice.name;
  for (const Tool& tool : tools)
    if (is_strict(tool)) options.strict.push_back(tool.name);
  if (!tools.empty() && (choice.required || !options.strict.empty() || !options.parallel)) {
    if (structured) {
      body.fault(422, "response_format",
                 "response_format: found one beside tool calls that are to be guided; choose one");
      return nullptr;
    }
    return made(Grammar::tool_calls(format, tools, options), "tools");
  }
  if (!structured) return nullptr;
  if (*type == "json_object") return made(Grammar::any_json_object(), "response_format");
  const Json* wrapper = response->contains("json_schema") ? &response->at("json_schema") : nullptr;
  const Json* schema =
      wrapper && wrapper->is_object() && wrapper->contains("schema") ? &wrapper->at("schema") : nullptr;
  if (!schema || !schema->is_object()) {
    body.wrong("response_format.json_schema", wrapper ? *wrapper : Json(), R"({"name": …, "schema": {…}})");
    return nullptr;
  }
  return made(Grammar::json_schema(*schema), "response_format.json_schema.schema");
}

}  // namespace

ApiResult<ChatRequest> read_chat_request(const Json& json, const Engine& engine) {
  const auto refused = [](int status, std::string param, std::string message, std::string code = {}) {
    return tl::unexpected(ApiError{status, std::move(message), std::move(param), std::move(code)});
  };
  if (!json.is_object()) return refused(400, "", fmt::format("found {}, expected a JSON object", shown(json)));
  Body body(json);
  ChatRequest request;
  request.model = (engine.store().folder() / "").parent_path().filename().string();
  if (const Json* model = body.find("model")) {
    if (!model->is_string()) return refused(400, "model", "model: expected a text");
    request.model = model->get<std::string>();
  }
  const Json* messages = body.find("messages");
  if (!messages) return refused(400, "messages", "messages: missing, expected a list of messages");
  const Result<std::vector<Message>> conversation = messages_from_json(*messages);
  if (!conversation) return refused(400, "messages", conversation.error().message);
  if (conversation->empty()) return refused(400, "messages", "messages: the list is empty, expected at least one");
  std::vector<Tool> tools;
  if (const Json* list = body.find("tools")) {
    Result<std::vector<Tool>> read = tools_from_json(*list);
    if (!read) return refused(400, "tools", read.error().message);
    tools = *std::move(read);
  }

  BatchRequest& batch = request.batch;
  GenerationRequest& generation = batch.generation;
  generation.sampling = read_sampling(body, engine.default_sampling());
  generation.stop = read_stop(body);
  generation.ignore_eos = body.boolean("ignore_eos", false);
  const auto most = std::numeric_limits<int64_t>::max();
  const auto longest = body.integer("max_completion_tokens", 1, most);
  generation.max_tokens = longest ? *longest : body.integer("max_tokens", 1, most).value_or(0);
  generation.logprobs = body.boolean("logprobs", false);
  generation.top_logprobs = body.integer("top_logprobs", 0, kMostTopLogprobs).value_or(0);
  if (generation.top_logprobs > 0 && !generation.logprobs)
    body.fault(422, "top_logprobs", "top_logprobs: only with \"logprobs\": true");
  batch.choices = body.integer("n", 1, kMostChoices).value_or(1);
  batch.priority = body.integer("priority", -100, 100).value_or(0);
  request.stream = body.boolean("stream", false);
  if (const Json* options = body.find("stream_options")) {
    if (options->is_object() && options->contains("include_usage") && options->at("include_usage").is_boolean())
      request.include_usage = options->at("include_usage").get<bool>();
    else
      body.wrong("stream_options", *options, R"({"include_usage": true or false})");
  }
  bool thinking = read_thinking(body, request.model);
  const ToolChoice choice = read_tool_choice(body, tools);
  if (choice.none) tools.clear();
  if (!tools.empty() && engine.chat_format() == ChatFormat::kV31) thinking = false;
  generation.grammar = read_grammar(body, engine.chat_format(), tools, choice);
  if (body.error()) return tl::unexpected(*body.error());

  ChatOptions options{.thinking = thinking};
  if (conversation->back().role == Role::kAssistant && conversation->back().prefix) {
    options.continue_final_message = true;
    options.add_generation_prompt = false;
  }
  const Result<ChatPrompt> prompt = render_chat_prompt(engine.chat_format(), *conversation, tools, options);
  if (!prompt) return refused(400, "messages", prompt.error().message);
  request.starts_in_reasoning = generation.in_reasoning = prompt->starts_in_reasoning;
  request.parse_tools = !tools.empty();
  Result<std::vector<int32_t>> tokens = engine.tokenizer().encode(prompt->text);
  if (!tokens) return refused(400, "messages", tokens.error().message);
  generation.prompt = *std::move(tokens);
  if (const Status status = check_batch_request(engine, batch); !status)
    return refused(400, "messages", status.error().message, "context_length_exceeded");
  return request;
}

}  // namespace fathom
