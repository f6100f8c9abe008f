// A step of the batcher: which rows, what their logits say, and the drafts for the next one.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/batcher.h"
#include "engine/batcher_sequence.h"

namespace fathom {

namespace {

std::span<const float> row_of(const Tensor& t, int64_t row) { return {t.row(row), static_cast<size_t>(t.cols())}; }

// How often drafts are accepted, before any were made: DeepSeek-V3's technical report says 0.85 to 0.90.
constexpr double kHope = 0.85;
// Drafts of an answer before its own acceptance decides.
constexpr double kTrialDrafts = 16;
// Rows of a prompt whose logits are wanted, in a step: 33 MB at the real vocabulary.
constexpr int64_t kScoredRows = 64;
// How long a step reads blocks from disk: hardly to be seen in a stream, or as long as a large step if there is none.
constexpr std::chrono::milliseconds kLoadBeside{2}, kLoadAlone{100};

}  // namespace

bool Batcher::step() {
  admit();
  if (running_.empty()) return false;
  const auto start = settings_.now();
  plan();
  if (parts_.empty()) return true;  // only blocks were read from disk

  const StepOutput out = engine_.runner().forward(gathered_step());
  int64_t row = 0, answers = 0, read_rows = 0, verified = 0;
  for (const Part& part : parts_) {
    if (!part.decodes) read_rows += part.end - part.begin;
    answers += part.decodes;
    verified += part.decodes && part.sequence->draft;
    take(part, out.logits, row);
  }
  if (has_mtp_) make_drafts(out.hidden);
  for (const Part& part : parts_) name_blocks(*part.sequence, /*answers_too=*/false);

  const double seconds = std::chrono::duration<double>(settings_.now() - start).count();
  budget_.record(answers, read_rows, seconds);
  // The first step with drafts has none to verify yet.
  if (read_rows == 0 && answers == answers_ && verified == (drafting_ ? drafters_ : 0))
    policy_.record(answers, verified, seconds);
  ++stats_.steps;
  stats_.read_tokens += read_rows;
  sweep();
  return true;
}

Step Batcher::gathered_step() const {
  Step step;
  step.tokens = tokens_;
  step.slices = slices_;
  step.kv = &engine_.kv_pool().cache();
  step.logit_rows = logit_rows_;
  return step;
}

// Of `room` rows, what each prompt is to have: of one priority all the same, and what one does not need goes to the others. So
// a short one is not read after a long one that came before it. An answer has one, and one for its draft.
void Batcher::share_out(int64_t room) {
  std::vector<Sequence*> prompts;
  for (const auto& s : running_) {
    s->planned = 0;
    if (s->put_back) continue;
    if (s->answers()) {
      if (!drafting_) s->draft.reset();
      s->planned = 1 + s->draft.has_value();
    } else if (use_cached(*s)) {
      // Rows of a prompt and rows of an answer, which are written again after it was put back, are not mixed: their
      // attention has different forms.
      s->planned = (s->rows < s->prompt_size() ? s->prompt_size() : s->size()) - s->rows;
      if (s->group->scores()) s->planned = std::min(s->planned, kScoredRows);
      prompts.push_back(s.get());
    }
  }
  const auto priority = [](const Sequence* s) { return s->group->request.priority; };
  std::ranges::stable_sort(prompts, [&](const Sequence* a, const Sequence* b) {
    return priority(a) != priority(b) ? priority(a) > priority(b) : a->planned < b->planned;
  });
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto equals = std::ranges::count(std::span(prompts).subspan(i), priority(prompts[i]), priority);
    prompts[i]->planned = std::min(prompts[i]->planned, (room + equals - 1) / equals);
    room -= prompts[i]->planned;
  }
}

// Rows for everything under way, in the order of precedence: who finds no room puts back those after it, none of which
// has rows yet.
void Batcher::plan() {
  answers_ = std::ranges::count_if(running_, [](const auto& s) { return s->answers(); });
  may_draft_ = std::ranges::count_if(running_, [&](const auto& s) { return s->answers() && may_draft(*s); });
  trial_ = policy_.trial(may_draft_, drafts_pay_);
  drafters_ = 0;
  double acceptance = 0;
  // Of an answer that had no drafts yet.
  const double expected =
      stats_.drafted > 0 ? static_cast<double>(stats_.accepted) / static_cast<double>(stats_.drafted) : kHope;
  for (const auto& s : running_) {
    if (!s->answers() || !wants_draft(*s)) continue;
    ++drafters_;
    acceptance += s->acceptance.known() ? s->acceptance.value() : expected;
  }
  drafts_pay_ = acceptance > policy_.least_acceptance(drafters_, drafts_pay_) * static_cast<double>(drafters_);
  drafting_ = trial_ == DraftPolicy::Trial::kDrafts || (trial_ == DraftPolicy::Trial::kNone && drafts_pay_);
  load_until_ = settings_.now() + (answers_ > 0 ? kLoadBeside : kLoadAlone);
  share_out(budget_.tokens(answers_));
  for (const auto& s : running_) {
    const int64_t count = std::exchange(s->planned, 0);
    if (!s->put_back && count > 0 && make_room(*s, s->rows + count)) s->planned = count;
  }
  for (auto& s : running_)
    if (s->put_back) wait(std::move(s));
  std::erase(running_, nullptr);
  FATHOM_CHECK(!running_.empty(), "nothing runs");

  parts_.clear(), tokens_.clear(), slices_.clear(), logit_rows_.clear();
  for (const auto& s : running_)
    if (s->planned > 0) add_part(*s);
}

void Batcher::add_part(Sequence& s) {
  const bool decodes = s.answers(), prompt = s.rows < s.prompt_size(), scores = prompt && s.group->scores();
  const int64_t first_row = static_cast<int64_t>(tokens_.size());
  const auto known = s.tokens.begin() + s.rows;
  tokens_.insert(tokens_.end(), known, known + std::min(s.planned, s.size() - s.rows));
  if (decodes && s.draft) tokens_.push_back(*s.draft);
  parts_.push_back({&s, s.rows, s.rows + s.planned, first_row, prompt, decodes, scores});
  slices_.push_back({s.rows, s.planned, s.kv.blocks(), prompt});
  // Of every row that is the last known or comes after it, or is wanted for its own sake.
  for (int64_t row = scores ? s.rows : s.size() - 1; row < s.rows + s.planned; ++row)
    logit_rows_.push_back(static_cast<int32_t>(first_row + row - s.rows));
}

// row: of the part's first logits; moves on to the next part's.
void Batcher::take(const Part& part, const Tensor& logits, int64_t& row) {
  Sequence& s = *part.sequence;
  const int64_t known = std::min(part.end, s.size());
  if (part.scores) score_prompt(part, logits, row);
  const int64_t rows_with_logits = part.end - std::min(part.end, s.size() - 1);
  waiting_.charge(s.group->request.client, part.end - part.begin);
  s.rows = known;
  s.reached = std::max(s.reached, s.rows);
  if (part.prompt) s.group->request.on_prefill(std::min(s.rows, s.prompt_size()), s.prompt_size());
  if (rows_with_logits == 0) return;

  if (s.splits) split_choices(s, row_of(logits, row));
  const std::optional<int32_t> draft = std::exchange(s.draft, std::nullopt);
  take_token(s, row_of(logits, row));
  if (part.decodes && draft) {
    const bool accepted = s.answer.last_token() == *draft;
    s.acceptance.add(accepted);
    ++s.answer.result().drafted, ++stats_.drafted;
    if (accepted) {
      ++s.answer.result().accepted, ++stats_.accepted;
      if (!s.answer.ended()) {
        s.rows = part.end;
        take_token(s, row_of(logits, row + 1));
      }
    }
  }
  row += rows_with_logits;
}

void Batcher::score_prompt(const Part& part, const Tensor& logits, int64_t& row) {
  const Group& group = *part.sequence->group;
  const GenerationRequest& request = group.request.generation;
  // The last row's logits are the answer's, which has not begun.
  for (int64_t i = part.begin; i < std::min(part.end, group.prompt_size() - 1); ++i, ++row) {
    const auto next = static_cast<size_t>(i) + 1;
    // It is known already where the prompt was put back since.
    if (next < group.prompt_logprobs->size()) continue;
    group.prompt_logprobs->push_back(with_logprobs(request.prompt[next], row_of(logits, row), request.top_logprobs));
  }
}

void Batcher::take_token(Sequence& s, std::span<const float> logits) {
  if (s.answer.tokens() == 0) s.first_token = settings_.now();
  const std::string text = s.answer.push(logits);
  s.tokens.push_back(s.answer.last_token());
  ++stats_.answer_tokens;
  s.group->request.on_text(s.choice, text, {&s.answer.result().tokens.back(), 1});
}

// The prompt is read: the other choices begin with the same logits.
void Batcher::split_choices(Sequence& s, std::span<const float> logits) {
  s.splits = false;
  for (int64_t choice = 1; choice < s.group->request.choices; ++choice) {
    auto other = std::make_unique<Sequence>(engine_, s.group, choice);
    other->cached = s.rows - 1;
    take_token(*other, logits);
    arrivals_.emplace_back(std::move(other), &s);
  }
}

bool Batcher::may_draft(const Sequence& s) const { return has_mtp_ && s.group->request.draft; }

// Its own acceptance decides once that is known, at what a draft costs when all have one that may.
bool Batcher::wants_draft(const Sequence& s) const {
  if (!may_draft(s)) return false;
  if (trial_ == DraftPolicy::Trial::kDrafts || s.acceptance.count() < kTrialDrafts) return true;
  return s.acceptance.value() > policy_.least_acceptance(may_draft_, drafts_pay_);
}

// The MTP layer reads all rows of which the next token is known, so that it has the keys of the whole text, of a prompt also for
// others that will find it in the cache; and guesses the token after next of answers that go on.
void Batcher::make_drafts(const Tensor& hidden) {
  tokens_.clear(), slices_.clear(), logit_rows_.clear(), hidden_.clear();
  drafted_for_.clear();
  for (const Part& part : parts_) {
    Sequence& s = *part.sequence;
    const bool goes_on = !s.answer.ended() && wants_draft(s) && (drafting_ || answers_ == 0);
    if (part.decodes && !goes_on) continue;
    const int64_t end = std::min(part.end, s.size() - 1);
    if (end <= part.begin) continue;
    const auto next = s.tokens.begin() + part.begin + 1;
    tokens_.insert(tokens_.end(), next, next + (end - part.begin));
    const float* rows = hidden.row(part.first_row);
    hidden_.insert(hidden_.end(), rows, rows + (end - part.begin) * hidden.cols());
    slices_.push_back({part.begin, end - part.begin, s.kv.blocks()});  // one row attends at most: in the form for few
    // A draft is worth its row only when a token comes after the next one.
    if (!goes_on || s.rows + 1 != s.size() || s.answer.room() < 2) continue;
    logit_rows_.push_back(static_cast<int32_t>(tokens_.size()) - 1);
    drafted_for_.push_back(&s);
  }
  if (tokens_.empty()) return;
  const int64_t rows = static_cast<int64_t>(tokens_.size());
  const StepOutput out = engine_.runner().draft(gathered_step(), Tensor::matrix(hidden_.data(), rows, hidden.cols()));
  for (size_t i = 0; i < drafted_for_.size(); ++i)
    drafted_for_[i]->draft = drafted_for_[i]->answer.foresee(row_of(out.logits, static_cast<int64_t>(i)));
}

// Ends what has ended, and lets in what began with this step: on the rows of the prompt, shared, as far as there is room;
// otherwise the prompt is found in the cache when there is.
void Batcher::sweep() {
  for (auto& [s, first] : arrivals_) {
    std::optional<KvSequence> kv;
    if (static_cast<int64_t>(running_.size()) < settings_.max_running) kv = first->kv.fork(s->prompt_size());
    if (kv) {
      s->kv = *std::move(kv);
      s->rows = s->reached = s->prompt_size();
      begin(std::move(s));
    } else {
      wait(std::move(s));
    }
  }
  arrivals_.clear();
  Running ended = waiting_.remove([](const Sequence& s) { return s.answer.ended(); });
  std::erase_if(running_, [&](auto& s) {
    if (!s->answer.ended()) return false;
    ended.push_back(std::move(s));
    return true;
  });
  for (const auto& s : ended) finish(*s);
}

}  // namespace fathom
