// Inside of the batcher: an answer under way.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "engine/batcher.h"

namespace fathom {

// What the answers to one request share.
struct Batcher::Group {
  int64_t id = 0;
  BatchRequest request;
  BatcherClock::time_point submitted;
  bool begun = false;      // one of its choices was, whatever became of it; or it was cancelled before
  int64_t unfinished = 0;  // choices

  // Of the prompt's first tokens, where they are wanted. Row i of the prompt says that of token i + 1.
  std::shared_ptr<std::vector<SampledToken>> prompt_logprobs;
  int64_t prompt_size() const { return static_cast<int64_t>(request.generation.prompt.size()); }
  // Some are to come: the prompt is being read for the first time.
  bool scores() const { return prompt_logprobs && static_cast<int64_t>(prompt_logprobs->size()) < prompt_size(); }
};

// It stays where it is: its answer refers to its request.
struct Batcher::Sequence {
  Sequence(Engine& engine, std::shared_ptr<Group> its_group, int64_t its_choice)
      : group(std::move(its_group)),
        choice(its_choice),
        answer(engine, group->request.generation, its_choice),
        kv(engine.kv_pool()),
        tokens(group->request.generation.prompt),
        splits(its_choice == 0 && group->request.choices > 1) {}

  int64_t prompt_size() const { return group->prompt_size(); }
  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  // Only the last token is not in the cache yet, and it is the answer's.
  bool answers() const { return rows >= prompt_size() && rows + 1 == size(); }
  bool goes_before(const Sequence& other) const {
    const int64_t mine = group->request.priority, theirs = other.group->request.priority;
    if (mine != theirs) return mine > theirs;
    return group->id != other.group->id ? group->id < other.group->id : choice < other.choice;
  }

  std::shared_ptr<Group> group;
  int64_t choice;
  Answer answer;
  KvSequence kv;
  std::vector<int32_t> tokens;  // prompt and answer
  int64_t rows = 0;             // tokens whose rows are in the cache
  int64_t reached = 0;          // the most rows it ever had
  std::vector<BlockKey> keys;   // of whole blocks, as far as they were asked for
  int64_t named = 0;            // blocks that were offered to the pool by name
  bool splits;                  // other choices begin where its prompt ends
  bool put_back = false;
  int64_t planned = 0;  // rows of the step

  std::optional<int32_t> draft;  // of the token after the last
  RunningMean acceptance{32};

  int64_t cached = 0;  // tokens of the prompt that were found in the cache
  BatcherClock::time_point first_token{};
};

// Rows [begin, end) of a sequence, the step's rows from first_row on.
struct Batcher::Part {
  Sequence* sequence;
  int64_t begin, end, first_row;
  bool prompt;   // of its prompt, not of its answer
  bool decodes;  // the last token of an answer, and the draft after it if there is one
  bool scores;   // all its rows have logits: of the tokens of the prompt that follow
};

}  // namespace fathom
