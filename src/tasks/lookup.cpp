// Looking things up in a long text: one fact, one among many like it, all values of a key, or one after another.
#include <fmt/ranges.h>

#include <algorithm>

#include "tasks/document.h"
#include "tasks/draw.h"
#include "tasks/words.h"

namespace fathom {

namespace {

constexpr std::string_view kStates[] = {"The {0} of {1} is {2}.", "Remember: the {0} of {1} is {2}.",
                                        "It is known that the {0} of {1} is {2}.", "The {0} of {1} is {2}."};
constexpr std::string_view kStatesOne[] = {"One {0} of {1} is {2}.", "Another {0} of {1} is {2}.",
                                           "A {0} of {1} is {2}."};
constexpr std::string_view kAskOne[] = {"What is the {0} of {1}?", "Which {0} does {1} have?", "Find the {0} of {1}.",
                                        "Tell me the {0} of {1}."};
constexpr std::string_view kAskAll[] = {"What are all {0}s of {1}?", "Which {0}s does {1} have?",
                                        "Find all {0}s of {1}.", "List every {0} of {1}."};

constexpr int64_t kAttempts = 64;
// Of conversations about one text: a fact and its turn take about 50 tokens, the filler has the rest.
constexpr int64_t kTokensATurn = 120, kMaxTurns = 64;

enum class KeyKind { kPerson, kTown, kCrate };
enum class ValueKind { kNumber, kWord, kCode };
struct Relation {
  std::string_view name;
  KeyKind key;
  ValueKind value;
};
constexpr Relation kRelations[] = {
    {"access code", KeyKind::kPerson, ValueKind::kNumber}, {"locker", KeyKind::kPerson, ValueKind::kCode},
    {"home town", KeyKind::kPerson, ValueKind::kWord},     {"ferry number", KeyKind::kTown, ValueKind::kNumber},
    {"password", KeyKind::kTown, ValueKind::kWord},        {"sector", KeyKind::kTown, ValueKind::kCode},
    {"weight", KeyKind::kCrate, ValueKind::kNumber},       {"owner", KeyKind::kCrate, ValueKind::kWord},
};

std::string code(TaskRandom& random) {
  std::string text;
  for (int i = 0; i < 2; ++i) text += static_cast<char>('A' + random.below(26));
  return fmt::format("{}-{}", text, random.between(10, 99));
}

std::string draw_key(TaskRandom& random, KeyKind kind) {
  if (kind == KeyKind::kCrate) return "crate " + code(random);
  const std::string name = capitalized(made_up_word(random, 2));
  if (kind == KeyKind::kTown) return name;
  const std::string_view first = random.pick(first_names());
  return fmt::format("{} {}", first, name);
}

std::string draw_value(TaskRandom& random, ValueKind kind) {
  if (kind == ValueKind::kNumber) return std::to_string(random.between(1000, 999999));
  return kind == ValueKind::kCode ? code(random) : capitalized(made_up_word(random, 2));
}

// One a name of which another contains would not be unique in the text.
bool clashes(const std::vector<std::string>& taken, const std::string& text) {
  return std::ranges::any_of(taken, [&](const std::string& other) {
    return other.find(text) != std::string::npos || text.find(other) != std::string::npos;
  });
}

// Keys and values of one text: all different, all keys of the split.
class Facts {
 public:
  explicit Facts(Draw& draw) : draw_(draw) {}

  std::string key(const Relation& relation) {
    struct Key {
      std::string text, problem;
    };
    return unique([&] {
      return draw_
          .fitting([&] {
            std::string text = draw_key(draw_.random, relation.key);
            std::string problem = fmt::format("look up {}", text);
            return Key{std::move(text), std::move(problem)};
          })
          .text;
    });
  }
  std::string value(const Relation& relation) {
    return unique([&] { return draw_value(draw_.random, relation.value); });
  }
  const std::vector<std::string>& taken() const { return taken_; }

 private:
  template <typename Make>
  std::string unique(const Make& make) {
    while (true) {
      std::string text = make();
      if (clashes(taken_, text)) continue;
      taken_.push_back(text);
      return text;
    }
  }

  Draw& draw_;
  std::vector<std::string> taken_;
};

// Facts about other keys: of the same relation for kMultiKey, where telling them apart is the task.
std::vector<std::string> draw_distractors(Draw& draw, Facts& facts, LookupKind kind, const Relation& asked_for,
                                          int64_t count) {
  std::vector<std::string> sentences;
  for (int64_t i = 0; i < count; ++i) {
    const Relation* relation = &asked_for;
    while (kind != LookupKind::kMultiKey && relation->name == asked_for.name) relation = &draw.random.pick(kRelations);
    const std::string key = facts.key(*relation), value = facts.value(*relation);
    sentences.push_back(draw.phrase(kStates, relation->name, key, value));
  }
  return sentences;
}

// Log-uniform, in whole numbers: each doubling is as likely as any other.
int64_t draw_length(TaskRandom& random, int64_t high) {
  int64_t doublings = 0;
  while ((kMinLength << (doublings + 1)) <= high) ++doublings;
  const int64_t low = kMinLength << random.between(0, doublings);
  return std::min(random.between(low, 2 * low - 1), high);
}

struct Needles {
  std::string key;
  std::vector<std::string> values{}, sentences{};
};

Needles draw_needles(Draw& draw, Facts& facts, LookupKind kind, const Relation& relation, int64_t most) {
  Needles needles{.key = facts.key(relation)};
  const int64_t count = kind == LookupKind::kMultiValue ? draw.random.between(2, most) : 1;
  const auto states = kind == LookupKind::kMultiValue ? std::span<const std::string_view>(kStatesOne) : kStates;
  for (int64_t i = 0; i < count; ++i) {
    needles.values.push_back(facts.value(relation));
    needles.sentences.push_back(draw.phrase(states, relation.name, needles.key, needles.values.back()));
  }
  return needles;
}

std::string listed(const std::vector<std::string>& values) {
  std::string text = values[0];
  for (size_t i = 1; i < values.size(); ++i) text += (i + 1 == values.size() ? " and " : ", ") + values[i];
  return text;
}

// Everything but the text: what is asked, and what is right.
Question lookup_question(Draw& draw, LookupKind kind, const Relation& relation, const Needles& needles,
                         std::string& ask) {
  const bool all = kind == LookupKind::kMultiValue;
  Question question;
  question.problem = fmt::format("look up {}", needles.key);
  ask = draw.phrase(all ? std::span<const std::string_view>(kAskAll) : kAskOne, relation.name, needles.key);
  for (const std::string& sentence : needles.sentences) question.reasoning += fmt::format("\"{}\"\n", sentence);
  question.reasoning += fmt::format("So {}.", listed(needles.values));
  question.answer = fmt::format("The {}{} of {} {} {}.", relation.name, all ? "s" : "", needles.key, all ? "are" : "is",
                                listed(needles.values));
  question.expected = {all ? Expected::Form::kTextSet : Expected::Form::kText, needles.values};
  return question;
}

int64_t length_of(Draw& draw) {
  return draw.options.length > 0 ? draw.options.length : draw_length(draw.random, draw.options.max_length);
}

double depth_of(Draw& draw) { return draw.options.depth >= 0 ? draw.options.depth : draw.random.uniform(); }

tl::unexpected<Error> too_short(int64_t length, const TaskOptions& options) {
  return fail("a text of {} {} is too short for its facts and the question: ask for more", length,
              options.tokenizer ? "tokens" : "bytes");
}

}  // namespace

Result<Question> draw_lookup(Draw& draw, LookupKind kind) {
  const TaskOptions& options = draw.options;
  const int64_t length = length_of(draw);
  const double depth = depth_of(draw);
  // Some of a short text, a few of a long one: 64 at 100,000 tokens would be as many as the text needs of any kind.
  const int64_t most = std::clamp<int64_t>(length / 100, 1, kind == LookupKind::kMultiKey ? 64 : 4);
  const int64_t wanted =
      kind == LookupKind::kMultiKey ? draw.random.between((most + 1) / 2, most) : draw.random.below(most);
  const int64_t values = std::clamp<int64_t>(length / 80, 2, 4);
  const bool question_first = draw.random.chance(25);

  // The facts of a short text may not fit, or no sentence what they leave: then others, and fewer.
  for (int64_t attempt = 0; attempt < kAttempts; ++attempt) {
    const Relation& relation = draw.random.pick(kRelations);
    Facts facts(draw);
    const Needles needles = draw_needles(draw, facts, kind, relation, attempt < 4 ? values : 2);
    std::string ask;
    Question question = lookup_question(draw, kind, relation, needles, ask);
    DocumentPlan plan{.length = length, .depth = depth, .needles = needles.sentences, .tokenizer = options.tokenizer};
    plan.distractors = draw_distractors(draw, facts, kind, relation, std::max<int64_t>(0, wanted - attempt));
    plan.before = question_first ? ask + "\n\n" : "";
    plan.after = question_first ? "" : "\n\n" + ask;
    plan.names = facts.taken();
    FATHOM_TRY(const Document document, write_document(draw.random, plan));
    if (!document.fits) continue;
    question.messages.push_back({.content = plan.before + document.text + plan.after});
    question.length = length;
    question.depth = depth;
    return question;
  }
  return too_short(length, options);
}

// What is graded is the last of the questions; those before it come with their answers.
Result<Question> draw_lookup_several(Draw& draw) {
  const TaskOptions& options = draw.options;
  const int64_t length = length_of(draw);
  const double depth = depth_of(draw);
  const int64_t most = std::clamp<int64_t>(length / kTokensATurn, 1, kMaxTurns);
  for (int64_t attempt = 0; attempt < kAttempts; ++attempt) {
    Facts facts(draw);
    DocumentPlan plan{.length = length, .depth = depth, .tokenizer = options.tokenizer};
    Question question;
    std::vector<Message> turns;
    for (int64_t left = std::max<int64_t>(1, most - attempt); left > 0; --left) {
      const Relation& relation = draw.random.pick(kRelations);
      const Needles needles = draw_needles(draw, facts, LookupKind::kSingle, relation, 1);
      std::string ask;
      question = lookup_question(draw, LookupKind::kSingle, relation, needles, ask);
      plan.after += "\n\n" + ask;
      turns.push_back({.content = std::move(ask)});
      if (left == 1) {
        plan.needles = needles.sentences;
      } else {
        plan.after += "\n\n" + question.answer;
        turns.push_back({.role = Role::kAssistant, .content = question.answer});
        plan.distractors.push_back(needles.sentences[0]);
      }
    }
    for (int64_t unasked = draw.random.below(most + 1) - attempt; unasked > 0; --unasked)
      plan.distractors.push_back(
          draw_distractors(draw, facts, LookupKind::kMultiKey, draw.random.pick(kRelations), 1)[0]);
    plan.names = facts.taken();
    FATHOM_TRY(const Document document, write_document(draw.random, plan));
    if (!document.fits) continue;
    turns[0].content = document.text + "\n\n" + turns[0].content;
    question.messages = std::move(turns);
    question.length = length;
    question.depth = depth;
    return question;
  }
  return too_short(length, options);
}

}  // namespace fathom
