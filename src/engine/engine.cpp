#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "engine/answer.h"

namespace fathom {

namespace {

Result<SamplingParams> load_default_sampling(const std::filesystem::path& folder) {
  SamplingParams params;
  params.temperature = 1.0;
  params.top_p = 0.95;
  const std::filesystem::path file = folder / "generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return params;
  FATHOM_TRY(const std::string text, read_file(file, size_t{1} << 20));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return fail("{}: not a JSON object", file.string());
  const auto number = [&](const char* name, double& value) -> Status {
    const auto it = json.find(name);
    if (it == json.end() || it->is_null()) return {};
    if (!it->is_number()) return fail("{}: {}: found {}, expected a number", file.string(), name, it->dump());
    value = it->get<double>();
    return {};
  };
  FATHOM_RETURN_IF_ERROR(number("temperature", params.temperature));
  FATHOM_RETURN_IF_ERROR(number("top_p", params.top_p));
  if (auto status = validate(params); !status) return fail("{}: {}", file.string(), status.error().message);
  return params;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const std::filesystem::path& folder, const EngineSettings& settings) {
  std::unique_ptr<Engine> engine(new Engine);
  engine->settings_ = settings;
  FATHOM_TRY(engine->isa_, choose_isa());
  FATHOM_TRY(engine->store_, WeightStore::open(folder));
  FATHOM_TRY(engine->tokenizer_, Tokenizer::load(folder));
  FATHOM_TRY(engine->default_sampling_, load_default_sampling(folder));
  const ModelConfig& config = engine->config();
  if (engine->tokenizer_->vocab_size() > config.vocab_size)
    return fail("{}: tokenizer.json has ids up to {}, config.json a vocab_size of {}; they do not belong together",
                folder.string(), engine->tokenizer_->vocab_size() - 1, config.vocab_size);
  if (config.eos_token_id >= engine->tokenizer_->vocab_size())
    return fail("{}: config.json has an eos_token_id of {}, tokenizer.json ids up to {}; they do not belong together",
                folder.string(), config.eos_token_id, engine->tokenizer_->vocab_size() - 1);
  int64_t& context = engine->settings_.context;
  if (context < 0 || context > config.max_position_embeddings)
    return fail("context of {} tokens: expected 1 to {} (max_position_embeddings of {})", context,
                config.max_position_embeddings, folder.string());
  if (context == 0) context = config.max_position_embeddings;
  engine->chat_format_ = detect_chat_format(*engine->tokenizer_);
  engine->threads_ = std::make_unique<ThreadPool>(settings.threads);
  engine->runner_ = make_cpu_runner(*engine->store_,
                                    {.isa = engine->isa_,
                                     .numerics = settings.numerics,
                                     .reproducible = settings.reproducible,
                                     .dense_attention = settings.dense_attention},
                                    *engine->threads_);
  LatentFormat& format = engine->settings_.latent_format;
  if (engine->isa_ == Isa::kReference) format = LatentFormat::kF32;
  FATHOM_TRY(auto pool,
             KvPool::create(kv_layout(config, format), config.total_layers(), std::max(settings.cache, context)));
  engine->kv_pool_ = std::make_unique<KvPool>(std::move(pool));
  return engine;
}

std::shared_ptr<const TokenTable> Engine::token_table() const {
  std::call_once(token_table_once_, [this] { token_table_ = std::make_shared<const TokenTable>(*tokenizer_); });
  return token_table_;
}

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kFailed:
      return "failed";
  }
  return "";
}

StepOutput Session::run(std::span<const int32_t> tokens, bool prompt, bool want_logits) {
  const Slice slice{tokens_in_cache(), static_cast<int64_t>(tokens.size()), kv_.blocks(), prompt};
  const int32_t last = static_cast<int32_t>(tokens.size()) - 1;
  Step step;
  step.tokens = tokens;
  step.slices = {&slice, 1};
  step.kv = &engine_.kv_pool().cache();
  if (want_logits) step.logit_rows = {&last, 1};
  const StepOutput out = engine_.runner().forward(step);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  return out;
}

Status check_request(const ModelConfig& config, int64_t context, const GenerationRequest& request) {
  const int64_t size = static_cast<int64_t>(request.prompt.size());
  if (size == 0) return fail("the prompt is empty: it must have at least one token");
  if (size >= context)
    return fail("the prompt has {} tokens, and the context {}: shorten the prompt or raise --context (up to {})", size,
                context, config.max_position_embeddings);
  for (int32_t id : request.prompt)
    if (id < 0 || id >= config.vocab_size)
      return fail("the prompt has token id {}: expected 0 to {}", id, config.vocab_size - 1);
  return validate(request.sampling);
}

Result<GenerationResult> Session::generate(const GenerationRequest& request, const GenerationCallbacks& callbacks,
                                           const std::atomic<bool>& cancel) {
  FATHOM_RETURN_IF_ERROR(check_request(engine_.config(), engine_.context(), request));
  const int64_t prompt_size = static_cast<int64_t>(request.prompt.size());
  Answer answer(engine_, request);

  // The last prompt token is always run: its logits are wanted.
  const auto differ = std::mismatch(tokens_.begin(), tokens_.end(), request.prompt.begin(), request.prompt.end() - 1);
  const int64_t cached = differ.first - tokens_.begin();
  tokens_.resize(static_cast<size_t>(cached));
  kv_.truncate(cached);

  const auto start = std::chrono::steady_clock::now();
  StepOutput out;
  bool cancelled = false;
  for (int64_t done = cached; done < prompt_size && !(cancelled = cancel);) {
    const int64_t count = std::min(engine_.settings().chunk, prompt_size - done);
    if (!kv_.reserve(done + count)) return fail("the cache has no room for {} tokens", done + count);
    out = run({request.prompt.data() + done, static_cast<size_t>(count)}, true, done + count == prompt_size);
    done += count;
    callbacks.on_prefill(done - cached, prompt_size - cached);
  }
  const double prefill_seconds = seconds_since(start);

  const auto decode_start = std::chrono::steady_clock::now();
  const auto show = [&](const std::string& text) {
    if (!text.empty()) callbacks.on_text(text);
  };
  while (!cancelled && !answer.ended() && !cancel) {
    if (answer.tokens() > 0) {
      if (!kv_.reserve(tokens_in_cache() + 1))
        return fail("the cache has no room for {} tokens", tokens_in_cache() + 1);
      const int32_t id = answer.last_token();
      out = run({&id, 1}, false, true);
    }
    show(answer.push({out.logits.data, static_cast<size_t>(out.logits.cols())}));
  }
  if (answer.result().finish == FinishReason::kFailed) return fail("{}", kFailedAnswer);
  show(answer.finish());
  GenerationResult result = answer.result();
  result.cached_tokens = cached;
  result.prefill_seconds = prefill_seconds;
  result.decode_seconds = seconds_since(decode_start);
  return result;
}

}  // namespace fathom
