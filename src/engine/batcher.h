// Many answers at once on one engine: continuous batching, prompts read beside answers, prefixes that are in the cache
// used again, drafts from the MTP layer.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/answer.h"
#include "engine/block_key.h"
#include "engine/block_store.h"
#include "engine/engine.h"
#include "engine/fair_queue.h"
#include "engine/kv_pool.h"
#include "engine/step_policy.h"

namespace fathom {

using BatcherClock = std::chrono::steady_clock;

struct BatchRequest {
  GenerationRequest generation;
  int64_t choices = 1;   // answers to the prompt, each of its own: choice i is what seed + i gives alone
  std::string client{};  // clients share the engine fairly, whatever each asks for
  int64_t priority = 0;  // higher goes first, in place of lower if there is no room for both
  bool draft = true;     // let the MTP layer draft; changes no token
  // Log-probabilities of the prompt's tokens too, with generation.top_logprobs alternatives. The prompt is then read without the
  // help of the cache, in small steps.
  bool prompt_logprobs = false;

  // These are called while a step is made; they must not call the batcher.
  // Once, when it waits no more.
  std::function<void()> on_begin = [] {};
  std::function<void(int64_t done, int64_t total)> on_prefill = [](int64_t, int64_t) {};
  // Tokens that were taken, and the text that is certain to belong to the answer now: whole UTF-8 characters. Either may be
  // empty.
  std::function<void(int64_t choice, std::string_view text, std::span<const SampledToken> tokens)> on_text =
      [](int64_t, std::string_view, std::span<const SampledToken>) {};
  // Once for each choice, after all its text.
  std::function<void(int64_t choice, const GenerationResult& result)> on_done = [](int64_t, const GenerationResult&) {};
};

// As check_request; also fails on choices below 1. Thread-safe.
Status check_batch_request(const Engine& engine, const BatchRequest& request);

struct BatcherSettings {
  int64_t max_running = 32;  // answers under way at once
  bool draft = true;         // where the checkpoint has an MTP layer
  double slowdown = 1.4;     // of running answers while prompts are read: 1 or more (PromptBudget)
  // What steps are measured with. Decides when prompts are read and drafts are made, never what is answered.
  std::function<BatcherClock::time_point()> now = BatcherClock::now;
  // Blocks on disk too, where one is given; it must outlive the batcher, and identity be what cache_identity says.
  BlockStore* store = nullptr;
  std::string identity{};
};

struct BatcherStats {
  int64_t running = 0, waiting = 0;  // answers
  int64_t unbegun = 0;               // requests: none of its answers has begun
  int64_t loaded_blocks = 0;         // from disk
  // Of prompts: read, and found in the cache. A prompt with several choices counts once.
  int64_t read_tokens = 0, cached_tokens = 0;
  int64_t steps = 0, answer_tokens = 0;
  int64_t drafted = 0, accepted = 0, preempted = 0, done = 0, cancelled = 0;
  int64_t free_blocks = 0, idle_blocks = 0, blocks = 0;
};

// Each answer has the bits that it has alone, whatever else runs, is cached or is drafted:
//  - attention and indexer work for each sequence, and no row's result depends on which others are in a step (model/runner.h);
//  - a cached block is named by all that decided its bits (block_key.h): tokens, and which of them were read as a prompt.
//    So rows of answers are found again only by the same answer, unless the engine is reproducible;
//  - every token is sampled from the model's own logits with the random number of its place. A draft is taken when it is that
//    token: there is nothing to correct afterwards, and nothing but cache rows to roll back (docs/decisions/0005-drafts.md).
//
// When the cache is full, the answers that came last, of the lowest priority, are put back: their blocks stay findable
// until their room is taken, and on disk if there is a store. What is lost is computed again when they go on.
//
// Not thread-safe: one thread submits, cancels and steps (engine/scheduler.h has that thread). Nothing else may use the
// engine meanwhile.
class Batcher {
 public:
  explicit Batcher(Engine& engine, const BatcherSettings& settings = {});
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // The request's id. Fails as check_batch_request does.
  Result<int64_t> submit(BatchRequest request);
  // Its answers that are under way end as cancelled, now. False when there are none.
  bool cancel(int64_t id);
  // The blocks of a text that are in memory, from its beginning on, as rows of a prompt: held until they are given back. Not
  // the last token's.
  KvSequence cached_prefix(std::span<const int32_t> tokens);
  // One step of the model for all that is under way. False when there is nothing to do.
  bool step();
  bool idle() const { return running_.empty() && waiting_.empty(); }
  BatcherStats stats() const;

 private:
  struct Group;
  struct Sequence;
  struct Part;  // rows of one sequence in a step
  using Running = std::vector<std::unique_ptr<Sequence>>;

  void admit();
  bool has_room_for(Sequence& s);
  void begin(std::unique_ptr<Sequence> s);
  void put_back(Sequence& s);
  void wait(std::unique_ptr<Sequence> s);
  bool make_room(Sequence& s, int64_t rows);
  const BlockKey& key_of(Sequence& s, int64_t block);
  BlockKey next_key(const BlockKey* before, std::span<const int32_t> tokens, int64_t prompt_rows) const;
  bool use_cached(Sequence& s);
  int32_t load(const BlockKey& key);
  void name_blocks(Sequence& s, bool answers_too);
  void touch_stored(const Sequence& s);

  void plan();
  void share_out(int64_t room);
  void add_part(Sequence& s);
  void take(const Part& part, const Tensor& logits, int64_t& row);
  void score_prompt(const Part& part, const Tensor& logits, int64_t& row);
  void take_token(Sequence& s, std::span<const float> logits);
  void split_choices(Sequence& s, std::span<const float> logits);
  void make_drafts(const Tensor& hidden);
  Step gathered_step() const;
  bool may_draft(const Sequence& s) const;
  bool wants_draft(const Sequence& s) const;
  void sweep();
  void finish(Sequence& s);

  Engine& engine_;
  const BatcherSettings settings_;
  const bool has_mtp_;
  const BlockKey root_;
  FairQueue<Sequence> waiting_;
  Running running_;  // those that go first stand first
  int64_t next_id_ = 0;
  BatcherStats stats_;
  PromptBudget budget_;
  DraftPolicy policy_;

  // Of the step under way.
  DraftPolicy::Trial trial_ = DraftPolicy::Trial::kNone;
  bool drafting_ = false, drafts_pay_ = false;
  BatcherClock::time_point load_until_;  // blocks are read from disk
  // Answers that take a token; those of them that may have drafts; those that are to have them.
  int64_t answers_ = 0, may_draft_ = 0, drafters_ = 0;
  std::vector<Part> parts_;
  std::vector<int32_t> tokens_, logit_rows_;
  std::vector<Slice> slices_;
  std::vector<float> hidden_;
  std::vector<Sequence*> drafted_for_;
  // Choices that begin with this step, and the answer with whose prompt they do.
  std::vector<std::pair<std::unique_ptr<Sequence>, Sequence*>> arrivals_;
};

}  // namespace fathom
