#include "api/request_parts.h"

#include <algorithm>
#include <limits>
#include <random>
#include <unordered_map>
#include <utility>

#include "api/tool_call_memory.h"

namespace fathom {

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
  body.refuse("logit_bias", "there is no such bias here");
  return p;
}

std::vector<std::string> read_stops(Body& body, std::string_view name) {
  const Json* stop = body.find(name);
  if (!stop) return {};
  constexpr std::string_view kExpected = "a text that is not empty, or a list of up to 16";
  std::vector<std::string> out;
  const auto add = [&](const Json& text) {
    if (text.is_string() && !text.get_ref<const std::string&>().empty())
      out.push_back(text.get<std::string>());
    else
      body.wrong(name, text, kExpected);
  };
  if (!stop->is_array()) {
    add(*stop);
  } else if (stop->size() > kMostStops) {
    body.fault(422, name, fmt::format("found {}, expected {}", stop->size(), kExpected));
  } else {
    for (const Json& text : *stop) add(text);
  }
  return out;
}

std::vector<int32_t> read_stop_tokens(Body& body, const Engine& engine) {
  const Json* list = body.list("stop_token_ids");
  if (!list) return {};
  std::vector<int32_t> out;
  if (list->size() > kMostStops)
    body.fault(422, "stop_token_ids", fmt::format("found {}, expected up to {}", list->size(), kMostStops));
  else
    for (const Json& id : *list) {
      const int64_t vocabulary = engine.config().vocab_size;
      if (id.is_number_integer() && id >= 0 && id < vocabulary)
        out.push_back(id.get<int32_t>());
      else
        body.wrong("stop_token_ids", id, fmt::format("ids from 0 to {}", vocabulary - 1));
    }
  return out;
}

bool read_thinking(Body& body, const std::string& model) {
  std::optional<bool> thinking;
  if (const Json* arguments = body.object("chat_template_kwargs")) {
    Body inner(body, *arguments, "chat_template_kwargs");
    if (inner.find("thinking")) thinking = inner.boolean("thinking", false);
  }
  if (const Json* own = body.find("thinking")) {
    const Json* type = own->is_object() && own->contains("type") ? &own->at("type") : nullptr;
    if (type && (*type == "enabled" || *type == "disabled"))
      thinking = *type == "enabled";
    else
      body.wrong("thinking", *own, R"({"type": "enabled"} or {"type": "disabled"})");
  }
  return thinking.value_or(model.ends_with("-reasoner"));
}

bool read_include_usage(Body& body) {
  const Json* options = body.object("stream_options");
  if (!options) return false;
  return Body(body, *options, "stream_options").boolean("include_usage", false);
}

void check_tool_name(Body& body, std::string_view member, const std::string& name, const std::vector<Tool>& tools) {
  if (std::ranges::none_of(tools, [&](const Tool& tool) { return tool.name == name; }))
    body.wrong(member, name, "the name of one of the tools");
}

ToolChoice read_tool_choice(Body& body, const std::vector<Tool>& tools) {
  const Json* choice = body.find("tool_choice");
  if (!choice || *choice == "auto") return {};
  if (*choice == "none") return {.none = true};
  if (tools.empty()) {
    body.fault(422, "tool_choice", "there are no tools to choose from");
    return {};
  }
  if (*choice == "required") return {.required = true};
  const auto member = [](const Json* object, const char* name) {
    return object && object->is_object() && object->contains(name) ? &object->at(name) : nullptr;
  };
  const Json* function = member(choice, "function");
  const Json* name = member(function ? function : choice, "name");
  if (!name || !name->is_string()) {
    body.wrong("tool_choice", *choice, R"("none", "auto", "required" or a function by its name)");
    return {};
  }
  ToolChoice named{.required = true, .name = name->get<std::string>()};
  check_tool_name(body, function ? "tool_choice.function.name" : "tool_choice.name", named.name, tools);
  return named;
}

std::shared_ptr<const Grammar> read_format(Body& body, std::string_view name, std::string_view wrapper,
                                           GrammarCache& grammars) {
  const Json* format = body.find(name);
  if (!format) return nullptr;
  const Json* type = format->is_object() && format->contains("type") ? &format->at("type") : nullptr;
  if (type && *type == "text") return nullptr;
  const auto made = [&](Result<std::shared_ptr<const Grammar>> grammar, std::string_view member) {
    if (!grammar) body.fault(422, member, grammar.error().message);
    return grammar ? *std::move(grammar) : nullptr;
  };
  if (type && *type == "json_object") return made(grammars.any_json_object(), name);
  if (!type || *type != "json_schema") {
    body.wrong(name, *format, R"({"type": "text"}, {"type": "json_object"} or {"type": "json_schema", …})");
    return nullptr;
  }
  std::string path(name);
  const Json* holder = format;
  if (!wrapper.empty()) {
    path += fmt::format(".{}", wrapper);
    holder = format->contains(wrapper) ? &format->at(std::string(wrapper)) : nullptr;
  }
  const Json* schema = holder && holder->is_object() && holder->contains("schema") ? &holder->at("schema") : nullptr;
  if (!schema || !schema->is_object()) {
    body.wrong(path, holder ? *holder : Json(), R"({"name": …, "schema": {…}})");
    return nullptr;
  }
  return made(grammars.json_schema(*schema), path + ".schema");
}

namespace {

bool is_strict(const Tool& tool) {
  const auto strict = tool.definition.find("strict");
  return strict != tool.definition.end() && strict->is_boolean() && strict->get<bool>();
}

// A client may send the results of parallel calls as they came; the model's formats know them by their place alone.
void order_results(std::vector<Message>& messages) {
  for (size_t i = 0; i < messages.size();) {
    const std::vector<ToolCall>& calls = messages[i++].tool_calls;
    const auto begin = messages.begin() + static_cast<std::ptrdiff_t>(i);
    const auto end = std::find_if(begin, messages.end(), [](const Message& m) { return m.role != Role::kTool; });
    i += static_cast<size_t>(end - begin);
    std::unordered_map<std::string_view, size_t> places;
    for (size_t c = 0; c < calls.size(); ++c) places.emplace(calls[c].id, c);
    const auto known = [&](const Message& m) { return places.contains(m.tool_call_id); };
    if (places.size() != calls.size() || !std::all_of(begin, end, known)) continue;
    std::stable_sort(begin, end, [&](const Message& a, const Message& b) {
      return places.at(a.tool_call_id) < places.at(b.tool_call_id);
    });
  }
}

}  // namespace

ApiResult<ChatSettings> ask(Conversation conversation, const ApiContext& context, std::string_view member,
                            std::string_view format_member, BatchRequest& batch) {
  const auto refused = [](int status, std::string_view param, std::string message, std::string code = {}) {
    return tl::unexpected(ApiError{status, std::move(message), std::string(param), std::move(code)});
  };
  const Engine& engine = context.engine;
  GenerationRequest& generation = batch.generation;
  std::vector<Message>& messages = conversation.messages;
  std::vector<Tool>& tools = conversation.tools;
  const ToolChoice& choice = conversation.choice;
  if (messages.empty())
    return refused(400, member, fmt::format("{}: the list is empty, expected at least one", member));
  if (choice.none) tools.clear();

  generation.grammar = conversation.format;
  ToolCallOptions calls{.optional = !choice.required, .parallel = conversation.parallel_calls};
  if (!choice.name.empty()) calls.name = choice.name;
  for (const Tool& tool : tools)
    if (is_strict(tool)) calls.strict.push_back(tool.name);
  const bool must_guide = choice.required || !calls.strict.empty() || !calls.parallel;
  if (!tools.empty() && must_guide && conversation.format)
    return refused(422, format_member,
                   fmt::format("{}: found one beside tool calls that are to be guided; choose one", format_member));
  if (!tools.empty() && (must_guide || (conversation.guide_calls && !conversation.format))) {
    auto grammar = engine.grammars().tool_calls(engine.chat_format(), tools, calls);
    if (!grammar) return refused(422, "tools", "tools: " + grammar.error().message);
    generation.grammar = *std::move(grammar);
  }

  // V3.1's format calls tools only without thinking.
  const bool thinks = conversation.thinking && (tools.empty() || engine.chat_format() != ChatFormat::kV31);
  ChatOptions options{.thinking = thinks};
  if (messages.back().role == Role::kAssistant && messages.back().prefix) {
    options.continue_final_message = true;
    options.add_generation_prompt = false;
  }
  order_results(messages);
  if (context.calls) context.calls->recall(messages);
  const Result<ChatPrompt> prompt = render_chat_prompt(engine.chat_format(), messages, tools, options);
  if (!prompt) return refused(400, member, prompt.error().message);
  generation.in_reasoning = prompt->starts_in_reasoning;
  Result<std::vector<int32_t>> tokens = engine.tokenizer().encode(prompt->text);
  if (!tokens) return refused(400, member, tokens.error().message);
  generation.prompt = *std::move(tokens);
  if (const Status status = check_batch_request(engine, batch); !status)
    return refused(400, member, status.error().message, "context_length_exceeded");
  return ChatSettings{engine.chat_format(), prompt->starts_in_reasoning, !tools.empty()};
}

}  // namespace fathom
