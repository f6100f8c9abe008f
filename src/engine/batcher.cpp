#include "engine/batcher.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/batcher_sequence.h"

namespace fathom {

Status check_batch_request(const Engine& engine, const BatchRequest& request) {
  if (request.choices < 1) return fail("n = {}: expected 1 or more answers", request.choices);
  return check_request(engine.config(), engine.context(), request.generation);
}

Batcher::Batcher(Engine& engine, const BatcherSettings& settings)
    : engine_(engine),
      settings_(settings),
      has_mtp_(settings.draft && engine.config().num_nextn_predict_layers > 0),
      root_(root_key(settings.identity + (has_mtp_ ? " with drafts" : ""))),
      budget_(engine.settings().chunk, settings.slowdown) {
  FATHOM_CHECK(settings.max_running >= 1, "max_running {}", settings.max_running);
}

Batcher::~Batcher() = default;

Result<int64_t> Batcher::submit(BatchRequest request) {
  FATHOM_RETURN_IF_ERROR(check_batch_request(engine_, request));
  auto group = std::make_shared<Group>();
  group->id = next_id_++;
  group->request = std::move(request);
  group->submitted = settings_.now();
  group->unfinished = group->request.choices;
  if (group->request.prompt_logprobs)
    group->prompt_logprobs =
        std::make_shared<std::vector<SampledToken>>(1, SampledToken{.id = group->request.generation.prompt[0]});
  ++stats_.unbegun;
  waiting_.begin(group->request.client);
  wait(std::make_unique<Sequence>(engine_, group, 0));
  return group->id;
}

bool Batcher::cancel(int64_t id) {
  const auto is_its = [&](const Sequence& s) { return s.group->id == id; };
  Running ended = waiting_.remove(is_its);
  std::erase_if(running_, [&](auto& s) {
    if (!is_its(*s)) return false;
    ended.push_back(std::move(s));
    return true;
  });
  if (ended.empty()) return false;
  // Choices that wait for the first one's prompt have not begun.
  const std::shared_ptr<Group> group = ended.front()->group;
  if (!std::exchange(group->begun, true)) --stats_.unbegun;
  if (std::ranges::any_of(ended, [](const auto& s) { return s->splits; }))
    for (int64_t choice = 1; choice < group->request.choices; ++choice)
      ended.push_back(std::make_unique<Sequence>(engine_, group, choice));
  for (const auto& s : ended) finish(*s);
  return true;
}

BatcherStats Batcher::stats() const {
  BatcherStats stats = stats_;
  stats.running = static_cast<int64_t>(running_.size());
  stats.waiting = static_cast<int64_t>(waiting_.size());
  const KvPool& pool = engine_.kv_pool();
  stats.free_blocks = pool.free_blocks();
  stats.idle_blocks = pool.idle_blocks();
  stats.blocks = pool.block_count();
  return stats;
}

void Batcher::wait(std::unique_ptr<Sequence> s) {
  const Group& group = *s->group;
  FairQueue<Sequence>::Ticket ticket{group.request.client, group.request.priority, group.id};
  waiting_.push(std::move(ticket), std::move(s));
}

void Batcher::begin(std::unique_ptr<Sequence> s) {
  s->put_back = false;
  if (!std::exchange(s->group->begun, true)) {
    --stats_.unbegun;
    s->group->request.on_begin();
  }
  const auto place = std::ranges::find_if(running_, [&](const auto& other) { return s->goes_before(*other); });
  running_.insert(place, std::move(s));
}

// Begins answers while there is room for them, in the place of some of lower priority if need be.
void Batcher::admit() {
  while (Sequence* next = waiting_.front()) {
    const int64_t priority = next->group->request.priority;
    const bool lower_runs = !running_.empty() && running_.back()->group->request.priority < priority;
    if (static_cast<int64_t>(running_.size()) >= settings_.max_running || !has_room_for(*next)) {
      if (!lower_runs) return;
      std::unique_ptr<Sequence> last = std::move(running_.back());
      running_.pop_back();
      put_back(*last);
      wait(std::move(last));
      continue;
    }
    begin(waiting_.pop());
  }
}

// For all tokens that are known and one more, without what running answers hold already and with a block left for each of
// them, so that what is begun is not put back at once.
bool Batcher::has_room_for(Sequence& s) {
  if (running_.empty()) return true;  // the pool holds a whole context
  const KvPool& pool = engine_.kv_pool();
  const int64_t spare = pool.free_blocks() - static_cast<int64_t>(running_.size());
  int64_t need = blocks_for(s.size() + 1);
  if (need <= spare || s.group->scores()) return need <= spare;
  for (int64_t block = 0; block < (s.size() - 1) / kBlockTokens && need > spare; ++block) {
    const std::optional<int64_t> holders = pool.holders_of(key_of(s, block));
    if (!holders) return false;
    if (*holders > 0) --need;
  }
  return need <= spare;
}

// On disk the ends of texts are to go first: without its beginning no block of a text is ever found.
void Batcher::touch_stored(const Sequence& s) {
  if (!settings_.store || s.named == 0) return;
  std::vector<BlockKey> keys(s.keys.begin(), s.keys.begin() + s.named);
  std::ranges::reverse(keys);
  settings_.store->touch(keys);
}

// Gives up its room; its whole blocks stay findable as long as nothing else needs theirs.
void Batcher::put_back(Sequence& s) {
  name_blocks(s, /*answers_too=*/true);
  touch_stored(s);
  s.kv.truncate(0);
  s.rows = 0;
  s.named = 0;
  s.draft.reset();
  s.put_back = true;
  ++stats_.preempted;
}

// Room for rows [0, rows) of s, by putting back those that come after it. False: s itself was put back.
bool Batcher::make_room(Sequence& s, int64_t rows) {
  while (!s.kv.reserve(rows)) {
    const auto last = std::find_if(running_.rbegin(), running_.rend(), [](const auto& r) { return !r->put_back; });
    FATHOM_CHECK(last != running_.rend(), "no room for {} rows in a pool of {} blocks that no one holds", rows,
                 engine_.kv_pool().block_count());
    put_back(**last);
    if (last->get() == &s) return false;
  }
  return true;
}

// A block's name says its tokens, those before it, and how many of its rows are a prompt's: the others have an answer's
// bits. A reproducible engine writes both alike.
const BlockKey& Batcher::key_of(Sequence& s, int64_t block) {
  FATHOM_CHECK((block + 1) * kBlockTokens <= s.size(), "block {} of {} tokens", block, s.size());
  while (static_cast<int64_t>(s.keys.size()) <= block) {
    const int64_t begin = static_cast<int64_t>(s.keys.size()) * kBlockTokens;
    s.keys.push_back(next_key(s.keys.empty() ? nullptr : &s.keys.back(),
                              std::span(s.tokens).subspan(static_cast<size_t>(begin), kBlockTokens),
                              std::clamp(s.prompt_size() - begin, int64_t{0}, kBlockTokens)));
  }
  return s.keys[static_cast<size_t>(block)];
}

BlockKey Batcher::next_key(const BlockKey* before, std::span<const int32_t> tokens, int64_t prompt_rows) const {
  std::array<int32_t, kBlockTokens + 1> content;
  std::copy_n(tokens.begin(), kBlockTokens, content.begin());
  content.back() = static_cast<int32_t>(engine_.settings().reproducible ? kBlockTokens : prompt_rows);
  return chain_key(before ? *before : root_, content);
}

KvSequence Batcher::cached_prefix(std::span<const int32_t> tokens) {
  KvSequence kv(engine_.kv_pool());
  std::optional<BlockKey> key;
  while (tokens.size() > kBlockTokens) {
    key = next_key(key ? &*key : nullptr, tokens.first(kBlockTokens), kBlockTokens);
    const int32_t block = engine_.kv_pool().find(*key);
    if (block < 0) break;
    kv.adopt(block);
    tokens = tokens.subspan(kBlockTokens);
  }
  return kv;
}

// Takes blocks from the cache as far as they are there. The last token is always run: its logits are wanted. False: more are
// on disk than there is time to read in this step.
bool Batcher::use_cached(Sequence& s) {
  while (s.rows % kBlockTokens == 0 && s.rows + kBlockTokens < s.size() &&
         s.kv.block_count() == s.rows / kBlockTokens) {
    // Rows that were not run have no logits.
    if (s.group->scores() && s.rows + kBlockTokens >= static_cast<int64_t>(s.group->prompt_logprobs->size()))
      return true;
    const BlockKey& key = key_of(s, s.rows / kBlockTokens);
    int32_t block = engine_.kv_pool().find(key);
    if (block < 0) {
      if (!settings_.store || !settings_.store->contains(key)) return true;
      if (settings_.now() >= load_until_) return false;
      block = load(key);
      if (block < 0) return true;
    }
    s.kv.adopt(block);
    s.rows += kBlockTokens;
    s.named = s.rows / kBlockTokens;
    // What it had before it was put back, computed or found, is no find.
    if (s.rows > s.reached && s.answer.tokens() == 0) s.cached += kBlockTokens;
    s.reached = std::max(s.reached, s.rows);
  }
  return true;
}

// −1: it was damaged, or there is no room.
int32_t Batcher::load(const BlockKey& key) {
  KvPool& pool = engine_.kv_pool();
  const int32_t block = pool.take();
  if (block < 0) return -1;
  if (!settings_.store->get(key, pool.parts(block))) {
    pool.give_back(block);
    return -1;
  }
  pool.name(block, key);
  ++stats_.loaded_blocks;
  return block;
}

// An answer's blocks are of use to others only where all rows are alike; to itself when it is put back.
void Batcher::name_blocks(Sequence& s, bool answers_too) {
  const int64_t end = answers_too || engine_.settings().reproducible ? s.rows : std::min(s.rows, s.prompt_size());
  KvPool& pool = engine_.kv_pool();
  for (; s.named < end / kBlockTokens; ++s.named) {
    const BlockKey& key = key_of(s, s.named);
    const int32_t block = s.kv.blocks()[s.named];
    pool.name(block, key);
    // What does not fit with all before it would only push those out.
    if (!settings_.store || s.named >= settings_.store->most_blocks(pool.block_bytes()) ||
        settings_.store->contains(key))
      continue;
    const auto parts = pool.parts(block);
    settings_.store->put(key, std::vector<std::span<const std::byte>>(parts.begin(), parts.end()));
  }
}

void Batcher::finish(Sequence& s) {
  const Group& group = *s.group;
  const std::string text = s.answer.finish();
  if (!text.empty()) group.request.on_text(s.choice, text, {});
  GenerationResult& result = s.answer.result();
  const auto now = settings_.now();
  const auto seconds = [](BatcherClock::duration d) { return std::chrono::duration<double>(d).count(); };
  const auto first = s.answer.tokens() > 0 ? s.first_token : now;
  result.cached_tokens = s.cached;
  result.prompt_logprobs = group.prompt_logprobs;
  if (s.choice == 0) stats_.cached_tokens += s.cached;
  result.prefill_seconds = seconds(first - group.submitted);
  result.decode_seconds = seconds(now - first);
  ++(s.answer.ended() ? stats_.done : stats_.cancelled);
  touch_stored(s);
  s.kv.truncate(0);
  group.request.on_done(s.choice, result);
  if (--s.group->unfinished == 0) waiting_.end(group.request.client);
}

}  // namespace fathom
