#include "load/server_probe.h"

#include <utility>

#include "base/quote.h"

namespace fathom::load {

namespace asio = boost::asio;
namespace http = boost::beast::http;

namespace {

constexpr std::chrono::seconds kProbeTime{30};
// A word is counted several times over, after others: how it is read there is how it is read in a text.
constexpr int64_t kTimes = 4;

std::string status_text(const HttpAnswer& answer) {
  return fmt::format("answered {}{}", answer.status, answer.body.empty() ? "" : ": " + in_quotes(answer.body));
}

asio::awaitable<HttpAnswer> post_tokenize(HttpClient& client, const ServerUrl& server, const std::string& model,
                                          const std::string& text) {
  HttpRequest request{.target = server.root + "/tokenize", .body = ""};
  request.body = Json{{"model", model}, {"prompt", text}, {"add_special_tokens", false}}.dump();
  co_return co_await client.send(request, Clock::now() + kProbeTime, nullptr);
}

// Of POST /tokenize: {"count": 12} or {"tokens": […]}.
std::optional<int64_t> read_count(const HttpAnswer& answer) {
  const auto json = parse_json(answer.body, "/tokenize");
  if (!json || !json->is_object()) return std::nullopt;
  if (const auto count = json->find("count"); count != json->end() && count->is_number_unsigned())
    return count->get<uint64_t>() < 1'000'000 ? std::optional(count->get<int64_t>()) : std::nullopt;
  if (const auto tokens = json->find("tokens"); tokens != json->end() && tokens->is_array())
    return static_cast<int64_t>(tokens->size());
  return std::nullopt;
}

std::string repeated(std::string_view word, int64_t times) {
  std::string text(kTextOpening);
  for (int64_t i = 0; i < times; ++i) text += word;
  return text;
}

}  // namespace

asio::awaitable<Result<std::string>> first_model(HttpClient& client, const ServerUrl& server) {
  const std::string target = server.api + "/models";
  const HttpRequest request{.method = http::verb::get, .target = target, .body = ""};
  const HttpAnswer answer = co_await client.send(request, Clock::now() + kProbeTime, nullptr);
  if (answer.failure) co_return fail("GET {}: {}; is the server running?", target, answer.failure->message);
  if (answer.status != 200) {
    co_return fail("{}: GET {} {}; give the model's name with --model{}", server.authority, target, status_text(answer),
                   answer.status == 401 ? " and the key with --api-key" : "");
  }
  const auto json = parse_json(answer.body, target);
  if (!json) co_return tl::unexpected(json.error());
  if (json->is_object() && json->contains("data") && (*json)["data"].is_array() && !(*json)["data"].empty()) {
    const Json& first = (*json)["data"][0];
    if (first.is_object() && first.contains("id") && first["id"].is_string()) co_return first["id"].get<std::string>();
  }
  co_return fail(
      "{}: GET {}: found {}, expected {{\"data\": [{{\"id\": …}}]}} with at least one model; give its name with "
      "--model",
      server.authority, target, in_quotes(answer.body));
}

asio::awaitable<Result<CountedWords>> count_words(HttpClient& client, const ServerUrl& server, const std::string& model,
                                                  const std::function<void(int64_t, int64_t)>& on_word) {
  const auto estimated = [](std::string_view why) {
    return CountedWords{TextSource(), fmt::format("estimated, a token a word: {}", why)};
  };
  HttpAnswer answer = co_await post_tokenize(client, server, model, std::string(kTextOpening));
  if (answer.failure && answer.status == 0) co_return fail("{}; is the server running?", answer.failure->message);
  if (answer.failure) co_return estimated(answer.failure->message);
  if (answer.status != 200) co_return estimated(fmt::format("/tokenize answered {}", answer.status));
  const std::optional<int64_t> opening = read_count(answer);
  if (!opening) co_return estimated("/tokenize answered without a count");

  std::vector<TextSource::Piece> pieces;
  const auto words = common_words();
  for (size_t i = 0; i < words.size(); ++i) {
    answer = co_await post_tokenize(client, server, model, repeated(words[i], kTimes));
    const std::optional<int64_t> count = read_count(answer);
    if (answer.failure || answer.status != 200 || !count)
      co_return estimated("/tokenize failed while words were counted");
    const int64_t tokens = *count - *opening;
    // Otherwise tokens reach over words, and cannot be added up.
    if (tokens > 0 && tokens % kTimes == 0) pieces.push_back({std::string(words[i]), tokens / kTimes});
    on_word(static_cast<int64_t>(i + 1), static_cast<int64_t>(words.size()));
  }
  if (pieces.empty()) co_return estimated("no word has tokens of its own");

  // Whether it adds up is tried.
  CountedWords counted{TextSource(std::move(pieces), *opening), "exact, by the server's /tokenize"};
  LoadRandom random(1);
  for (const int64_t tokens : {64, 1000}) {
    const MadeText made = counted.source.make(tokens, random);
    answer = co_await post_tokenize(client, server, model, made.text);
    const std::optional<int64_t> count = answer.failure ? std::nullopt : read_count(answer);
    if (!count || *count != made.tokens) {
      counted.how = fmt::format("estimated from counts of words: a text of {} tokens has {}", made.tokens,
                                count ? fmt::format("{}", *count) : "an unknown number");
      break;
    }
    if (made.tokens != tokens) counted.how = "by the server's /tokenize, a few tokens short where none fits";
  }
  co_return counted;
}

}  // namespace fathom::load
