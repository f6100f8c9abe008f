// A loaded model with its tokenizer, and conversations with it.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "checkpoint/weight_store.h"
#include "engine/kv_pool.h"
#include "engine/sampler.h"
#include "grammar/grammar.h"
#include "grammar/grammar_cache.h"
#include "grammar/token_table.h"
#include "model/runner.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace fathom {

struct EngineSettings {
  int threads = 0;      // 0: one per available core
  int64_t context = 0;  // tokens of a sequence at most; 0: what the model was made for
  int64_t cache = 0;    // tokens of cache for all sequences; less than the context: the context
  Numerics numerics = Numerics::kW8A16;
  LatentFormat latent_format = LatentFormat::kBf16;
  bool reproducible = false;     // decoding has the bits of prefill; prompts cost more
  bool dense_attention = false;  // leave the indexer out: every query attends to all it sees
  int64_t chunk = 512;           // prompt tokens a step; changes speed and memory, never a result
};

// Owns everything that is shared by conversations. Not thread-safe.
class Engine {
 public:
  static Result<std::unique_ptr<Engine>> open(const std::filesystem::path& folder, const EngineSettings& settings);

  const ModelConfig& config() const { return store_->config(); }
  const WeightStore& store() const { return *store_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // For grammars; made when it is first asked for. Thread-safe.
  std::shared_ptr<const TokenTable> token_table() const;
  // Those of requests' schemas. Thread-safe.
  GrammarCache& grammars() const { return grammars_; }
  ChatFormat chat_format() const { return chat_format_; }
  const EngineSettings& settings() const { return settings_; }
  int64_t context() const { return settings_.context; }
  Isa isa() const { return isa_; }
  int threads() const { return threads_->threads(); }
  Runner& runner() { return *runner_; }
  KvPool& kv_pool() { return *kv_pool_; }
  // From generation_config.json, where the checkpoint has one; otherwise temperature 1.0 and top_p 0.95.
  const SamplingParams& default_sampling() const { return default_sampling_; }

 private:
  Engine() = default;
  EngineSettings settings_;
  Isa isa_ = Isa::kPortable;
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<Tokenizer> tokenizer_;
  mutable GrammarCache grammars_;
  mutable std::once_flag token_table_once_;
  mutable std::shared_ptr<const TokenTable> token_table_;
  ChatFormat chat_format_ = ChatFormat::kV31;
  std::unique_ptr<ThreadPool> threads_;
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<KvPool> kv_pool_;
  SamplingParams default_sampling_;
};

struct GenerationRequest {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  int64_t max_tokens = 0;            // 0: to the end of the context
  std::vector<std::string> stop;     // strings that end the answer and are not part of it
  std::vector<int32_t> stop_tokens;  // besides the end-of-sentence token
  bool ignore_eos = false;
  // What the answer has to be, if anything. Where the prompt ends inside of reasoning, from "</think>" on: reasoning is
  // free. An answer that nothing can follow ends; one that was cut by its length is the beginning of one that fits.
  std::shared_ptr<const Grammar> grammar;
  bool in_reasoning = false;
  bool logprobs = false;
  int64_t top_logprobs = 0;
};

// kFailed: the model's logits are no numbers, or its token none that the grammar allows; nothing that it said is to be trusted.
enum class FinishReason { kStop, kLength, kCancelled, kFailed };
std::string_view finish_reason_name(FinishReason reason);  // "stop", "length", "cancelled", "failed"
// What to tell of it.
inline constexpr const char* kFailedAnswer =
    "the model computed no numbers: its weights are damaged, or no model's; compare the files with where they are from";

struct GenerationResult {
  std::vector<SampledToken> tokens;  // with the one that ended it, if a token did
  std::string text;                  // without what ended it
  std::string stop;                  // the stop string that ended it, if one did
  FinishReason finish = FinishReason::kStop;
  int64_t prompt_tokens = 0, cached_tokens = 0;    // cached: of the prompt, found in the cache
  int64_t drafted = 0, accepted = 0;               // tokens that the MTP layer guessed, and guessed right
  double prefill_seconds = 0, decode_seconds = 0;  // until the first token, from when it was asked for; from then on
  // Of each token of the prompt, of which the first has none; shared by all choices. Null unless BatchRequest asked for it.
  std::shared_ptr<const std::vector<SampledToken>> prompt_logprobs;
};

struct GenerationCallbacks {
  // Text that is certain to belong to the answer; whole UTF-8 characters.
  std::function<void(std::string_view)> on_text = [](std::string_view) {};
  std::function<void(int64_t done, int64_t total)> on_prefill = [](int64_t, int64_t) {};
};

// Fails on a prompt that is empty, fills `context` tokens or more, or holds ids outside the vocabulary, and on sampling
// parameters out of range.
Status check_request(const ModelConfig& config, int64_t context, const GenerationRequest& request);

// One sequence and its cache. What a prompt has in common with the tokens in the cache is not computed again. That
// changes no bit of the answer where those tokens were a prompt too; those that were an answer have the same rows to
// rounding, or bit for bit if the engine is reproducible. The engine must outlive it.
class Session {
 public:
  explicit Session(Engine& engine) : engine_(engine), kv_(engine.kv_pool()) {}

  // Fails as check_request does. `cancel` is looked at before every step; a cancelled answer is a result, with what
  // came so far.
  Result<GenerationResult> generate(const GenerationRequest& request, const GenerationCallbacks& callbacks,
                                    const std::atomic<bool>& cancel);

  int64_t tokens_in_cache() const { return static_cast<int64_t>(tokens_.size()); }
  void clear() { tokens_.clear(), kv_.truncate(0); }

 private:
  StepOutput run(std::span<const int32_t> tokens, bool prompt, bool want_logits);

  Engine& engine_;
  KvSequence kv_;
  std::vector<int32_t> tokens_;  // whose rows are in the cache
};

}  // namespace fathom
