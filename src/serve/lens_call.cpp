#include "serve/lens_call.h"

#include <openssl/evp.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "engine/work.h"
#include "serve/wake.h"
#include "text/stream_decoder.h"

namespace fathom {

namespace asio = boost::asio;

namespace {

std::string base64(const std::vector<uint8_t>& bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');  // and the 0 at its end
  text.resize(static_cast<size_t>(
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes.data(), static_cast<int>(bytes.size()))));
  return text;
}

// Whole numbers from 0, rising, each once.
ApiResult<std::vector<int64_t>> read_numbers(const Json& body, const char* name, int64_t end) {
  std::vector<int64_t> list;
  const auto it = body.find(name);
  if (it == body.end() || it->is_null()) return list;
  const auto wrong = [&] {
    return tl::unexpected(
        ApiError{422, fmt::format("{}: expected a list of whole numbers from 0 to {}", name, end - 1), name});
  };
  if (!it->is_array()) return wrong();
  for (const Json& value : *it) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(end)) return wrong();
    list.push_back(value.get<int64_t>());
  }
  std::ranges::sort(list);
  list.erase(std::unique(list.begin(), list.end()), list.end());
  return list;
}

ApiResult<int64_t> read_size(const Json& map, const char* name) {
  const auto it = map.find(name);
  if (it != map.end() && it->is_number_unsigned() && it->get<uint64_t>() >= 1 && it->get<uint64_t>() <= kMostLensMap)
    return it->get<int64_t>();
  return tl::unexpected(
      ApiError{422, fmt::format("map.{}: expected a whole number from 1 to {}", name, kMostLensMap), "map"});
}

Json token_texts(const Engine& engine, std::span<const int32_t> tokens) {
  Json list = Json::array();
  // A character of several tokens stands with the last of them.
  StreamDecoder decoder(engine.tokenizer());
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string text = decoder.push(tokens[i]);
    if (i + 1 == tokens.size()) text += decoder.finish();
    if (text.empty() && engine.tokenizer().token_bytes(tokens[i]).starts_with('<'))
      text = engine.tokenizer().token_bytes(tokens[i]);
    list.push_back({{"id", tokens[i]}, {"text", std::move(text)}});
  }
  return list;
}

// What the whole text costs to read, with the indexer's selection and without.
Json cost_json(const Engine& engine, int64_t tokens) {
  const StepShape shape{.start = 0, .count = tokens};
  const LatentFormat format = engine.settings().latent_format;
  const Work dense = step_work(engine.config(), {.dense_attention = true, .latent_format = format}, shape).total();
  const Work sparse = step_work(engine.config(), {.latent_format = format}, shape).total();
  return {{"dense_flops", dense.flops},
          {"sparse_flops", sparse.flops},
          {"dense_bytes", dense.bytes()},
          {"sparse_bytes", sparse.bytes()}};
}

Json layer_json(const LensLayer& layer, int64_t number, const LensResult& result, const LensRequest& request) {
  Json queries = Json::array();
  for (const LensQuery& q : layer.queries)
    queries.push_back({{"position", q.position},
                       {"selected", q.selected},
                       {"scores", q.scores},
                       {"recall", q.recall ? Json(*q.recall) : Json()}});
  Json map;
  if (!layer.map.empty())
    map = {{"rows", result.map_positions.size()},
           {"cols", request.map_columns},
           {"row_positions", result.map_positions},
           {"data", base64(layer.map)}};
  return {{"layer", number},
          {"queries", std::move(queries)},
          {"map", std::move(map)},
          {"expert_load", layer.expert_load.empty() ? Json() : Json(layer.expert_load)}};
}

ApiError not_taken(const Refusal& refusal) {
  return {refusal.kind == Refusal::Kind::kInvalid ? 400 : 503, refusal.message};
}
ApiError no_room() { return {503, "the cache has no room for this text now: try later, or a shorter one"}; }

Json lens_json(const Engine& engine, const LensCall& call, const LensResult& result) {
  Json layers = Json::array();
  for (const int64_t layer : call.layers)
    layers.push_back(layer_json(result.layers[static_cast<size_t>(layer)], layer, result, call.request));
  return {{"tokens", token_texts(engine, call.tokens)},
          {"layers", std::move(layers)},
          {"cost", cost_json(engine, static_cast<int64_t>(call.tokens.size()))},
          {"top_k", engine.config().index_topk}};
}

}  // namespace

ApiResult<LensCall> read_lens_call(const Json& body, const ApiContext& context) {
  if (!body.is_object()) return tl::unexpected(ApiError{400, "expected a JSON object"});
  if (!context.engine.config().sparse())
    return tl::unexpected(ApiError{422, "model: it attends to everything; the lens shows sparse attention", "model"});
  // Only what the prompt is made of: what is said of an answer is of no matter here.
  Json prompt = Json::object();
  for (const char* name :
       {"model", "messages", "prompt", "tools", "thinking", "chat_template_kwargs", "add_special_tokens"})
    if (const auto it = body.find(name); it != body.end()) prompt[name] = *it;
  auto call = prompt.contains("messages") ? read_chat_call(prompt, context) : read_completion_call(prompt, context);
  if (!call) return tl::unexpected(call.error());
  if (call->prompts.size() != 1)
    return tl::unexpected(
        ApiError{422, fmt::format("prompt: found {} texts, expected one", call->prompts.size()), "prompt"});

  LensCall lens{
      .tokens = std::move(call->prompts.front().generation.prompt), .request = {}, .layers = {}, .client = {}};
  const auto size = static_cast<int64_t>(lens.tokens.size());
  auto queries = read_numbers(body, "queries", size);
  if (!queries) return tl::unexpected(queries.error());
  lens.request.queries = *std::move(queries);
  if (lens.request.queries.empty()) lens.request.queries = {size - 1};
  auto layers = read_numbers(body, "layers", context.engine.config().num_hidden_layers);
  if (!layers) return tl::unexpected(layers.error());
  lens.layers = *std::move(layers);
  if (lens.layers.empty()) {
    lens.layers.resize(static_cast<size_t>(context.engine.config().num_hidden_layers));
    std::iota(lens.layers.begin(), lens.layers.end(), 0);
  }
  if (const auto map = body.find("map"); map != body.end() && !map->is_null()) {
    if (!map->is_object()) return tl::unexpected(ApiError{422, "map: expected {\"rows\", \"cols\"}", "map"});
    const auto rows = read_size(*map, "rows"), columns = read_size(*map, "cols");
    if (!rows) return tl::unexpected(rows.error());
    if (!columns) return tl::unexpected(columns.error());
    lens.request.map_rows = *rows, lens.request.map_columns = *columns;
  }
  if (const Status status = check_lens(lens.tokens, lens.request); !status)
    return tl::unexpected(ApiError{422, status.error().message, "queries"});
  return lens;
}

asio::awaitable<ApiResult<std::string>> answer_lens(LoadedModel& model, LensCall&& call, asio::thread_pool& workers) {
  const auto wake = std::make_shared<Wake>(co_await asio::this_coro::executor);
  BatchRequest reading;
  reading.generation.prompt = call.tokens;
  reading.generation.max_tokens = 1;
  reading.client = call.client;
  auto stream = model.scheduler->submit(std::move(reading), [wake] { wake->notify(); });
  if (!stream) co_return tl::unexpected(not_taken(stream.error()));
  while (!(*stream)->finished()) {
    while ((*stream)->next(std::chrono::milliseconds(0))) {
    }
    if (!(*stream)->finished()) co_await wake->wait(std::chrono::milliseconds(1000));
  }

  // Shared with the model's thread, which may come to it after this coroutine is gone.
  struct Look {
    LensCall call;
    std::optional<LensResult> result;
    std::atomic<bool> done = false;
  };
  const auto shared = std::make_shared<Look>();
  shared->call = std::move(call);
  Engine* const engine = model.engine.get();
  const bool taken = model.scheduler->call([shared, wake, engine](Batcher& batcher) {
    KvSequence kv = batcher.cached_prefix(shared->call.tokens);
    shared->result = look(*engine, kv, shared->call.tokens, shared->call.request);
    shared->done = true;
    wake->notify();
  });
  while (taken && !shared->done) co_await wake->wait(std::chrono::milliseconds(1000));
  if (!taken || !shared->result) co_return tl::unexpected(no_room());

  const auto text = [&] {
    return lens_json(*engine, shared->call, *shared->result).dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  co_return co_await run_on(workers, text);
}

}  // namespace fathom
