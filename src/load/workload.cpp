#include "load/workload.h"

#include <algorithm>
#include <boost/random/normal_distribution.hpp>
#include <boost/random/uniform_int_distribution.hpp>
#include <boost/random/uniform_real_distribution.hpp>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/file.h"

namespace fathom::load {

namespace {

// Asks for prose at length, so that answers do not end early where the server knows no ignore_eos.
constexpr std::string_view kLongQuestion =
    "\n\nQuestion: which words stand out in the text above, and what could it be about? Explain at length.";

std::string value_text(const Json& value) {
  return in_quotes(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

Workload::Workload(const WorkloadSettings& settings, const TextSource& source, bool warmup)
    : settings_(settings), source_(source), random_(settings.seed) {
  // Of the seed alone, so that warm-up has the shared ones too.
  if (settings_.system_tokens > 0) system_ = source_.make(settings_.system_tokens, random_);
  for (int64_t i = 0; i < settings_.documents && settings_.kind == WorkloadKind::kLong; ++i)
    documents_.push_back(source_.make(settings_.prompt_tokens, random_));
  std::seed_seq stream{static_cast<uint32_t>(settings.seed), static_cast<uint32_t>(settings.seed >> 32),
                       warmup ? 1U : 0U};
  random_.seed(stream);
}

Result<Workload> Workload::open(const WorkloadSettings& settings, const TextSource& source, bool warmup) {
  Workload workload(settings, source, warmup);
  if (settings.kind == WorkloadKind::kFile) FATHOM_RETURN_IF_ERROR(workload.read_file_lines());
  return workload;
}

Status Workload::read_file_lines() {
  const std::string path = settings_.file.string();
  FATHOM_TRY(const std::string text, read_file(settings_.file));
  std::string problems;
  int shown = 0;
  const auto problem = [&](const std::string& what) {
    if (++shown <= 10) problems += (problems.empty() ? "" : "\n  ") + what;
  };
  int64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    auto json = parse_json(line, fmt::format("{}:{}", path, number));
    if (!json) {
      problem(json.error().message);
      continue;
    }
    Json body = *std::move(json);
    if (body.is_array()) body = Json{{"messages", std::move(body)}};
    if (body.is_object() && body.contains("body") && body["body"].is_object()) body = Json(body["body"]);
    if (body.is_object() && (body.contains("messages") || body.contains("prompt")))
      bodies_.push_back(std::move(body));
    else
      problem(
          fmt::format("{}:{}: found {}, expected an object with \"messages\" or \"prompt\", or an array of messages",
                      path, number, value_text(body)));
  }
  if (!problems.empty()) return fail("{}", problems);
  if (bodies_.empty()) return fail("{}: no requests in it", path);
  return {};
}

int64_t Workload::draw_length(int64_t mean) {
  if (settings_.kind != WorkloadKind::kRandom || mean == 0) return mean;
  const double m = static_cast<double>(mean), s = m * settings_.spread;
  double length = 0;
  if (settings_.normal)
    length = std::clamp(boost::random::normal_distribution<double>(m, s)(random_), 1.0, m + 4 * s);
  else
    length = s > 0 ? boost::random::uniform_real_distribution<double>(m - s, m + s)(random_) : m;
  return std::max<int64_t>(1, std::llround(length));
}

Script Workload::next() {
  if (settings_.kind == WorkloadKind::kFile) {
    Script script{.system = "", .turns = {{"", 0, settings_.output_tokens}}, .body = bodies_[next_body_]};
    next_body_ = (next_body_ + 1) % bodies_.size();
    return script;
  }
  Script script{.system = system_.text, .turns = {}};
  int64_t before = system_.tokens;
  for (int64_t i = 0; i < turns(); ++i) {
    const int64_t prompt = draw_length(settings_.prompt_tokens), output = draw_length(settings_.output_tokens);
    MadeText made;
    if (documents_.empty())
      made = source_.make(prompt, random_);
    else
      made = documents_[boost::random::uniform_int_distribution<size_t>(0, documents_.size() - 1)(random_)];
    if (settings_.kind == WorkloadKind::kLong) made.text += kLongQuestion;
    before += made.tokens;
    script.turns.push_back({std::move(made.text), before, output});
    before += output;
  }
  return script;
}

Conversation::Conversation(Script script, const RequestSettings& settings, const std::string& model)
    : script_(std::move(script)), settings_(settings), model_(model) {
  if (script_.system.empty()) return;
  messages_.push_back({{"role", "system"}, {"content", script_.system}});
  prompt_ = script_.system;
}

std::string Conversation::body() const {
  FATHOM_CHECK(!done(), "turn {} of {}", turn_, script_.turns.size());
  const Script::Turn& turn = script_.turns[turn_];
  const auto with_default = [](Json& json, const char* name, Json value) {
    if (!json.contains(name)) json[name] = std::move(value);
  };
  Json json = script_.body;
  json["model"] = model_;
  if (!turn.text.empty() && settings_.endpoint == Endpoint::kChat) {
    json["messages"] = messages_;
    json["messages"].push_back({{"role", "user"}, {"content", turn.text}});
  } else if (!turn.text.empty()) {
    json["prompt"] = prompt_ + (prompt_.empty() ? "" : "\n\n") + turn.text;
  }
  if (turn.output_tokens > 0 && !json.contains("max_completion_tokens"))
    with_default(json, "max_tokens", turn.output_tokens);
  if (settings_.ignore_eos) with_default(json, "ignore_eos", true);
  if (settings_.temperature) with_default(json, "temperature", *settings_.temperature);
  if (settings_.seed) with_default(json, "seed", *settings_.seed);
  if (settings_.thinking) with_default(json, "thinking", {{"type", *settings_.thinking ? "enabled" : "disabled"}});
  json.merge_patch(settings_.extra);
  // What is measured needs these.
  json["stream"] = true;
  Json& options = json["stream_options"];
  if (!options.is_object()) options = Json::object();
  options["include_usage"] = true;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void Conversation::answered(const std::string& text) {
  const std::string& asked = script_.turns[turn_].text;
  if (settings_.endpoint == Endpoint::kChat) {
    messages_.push_back({{"role", "user"}, {"content", asked}});
    messages_.push_back({{"role", "assistant"}, {"content", text}});
  } else {
    prompt_ += (prompt_.empty() ? "" : "\n\n") + asked + text;
  }
  ++turn_;
}

}  // namespace fathom::load
