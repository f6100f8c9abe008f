#include "tasks/document.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "tasks/filler.h"

namespace fathom {

namespace {

constexpr int64_t kSentencesPerParagraph = 6;

Result<int64_t> measure(const Tokenizer* tokenizer, std::string_view text) {
  if (tokenizer == nullptr) return static_cast<int64_t>(text.size());
  FATHOM_TRY(const auto ids, tokenizer->encode(text));
  return static_cast<int64_t>(ids.size());
}

struct Sentence {
  std::string text;  // with the space or line feed before it
  int64_t cost = 0;
};

// A word breaks no token at its space, so the costs of sentences add up to that of the text, or very nearly.
Result<Sentence> measured(TaskRandom& random, std::string text, const Tokenizer* tokenizer) {
  text.insert(text.begin(), random.below(kSentencesPerParagraph) == 0 ? '\n' : ' ');
  FATHOM_TRY(const int64_t cost, measure(tokenizer, text));
  return Sentence{std::move(text), cost};
}

std::string sentence_without(TaskRandom& random, const std::vector<std::string>& names) {
  while (true) {
    std::string text = filler_sentence(random);
    const auto has = [&](const std::string& name) { return text.find(name) != std::string::npos; };
    if (std::ranges::none_of(names, has)) return text;
  }
}

// Filler for `budget`: sentences while they fit, then short ones, the longest of a few that still fits.
Result<std::vector<Sentence>> draw_filler(TaskRandom& random, int64_t budget, const DocumentPlan& plan) {
  const Tokenizer* tokenizer = plan.tokenizer;
  std::vector<Sentence> filler;
  int misses = 0;
  while (misses < 3) {
    FATHOM_TRY(Sentence next, measured(random, sentence_without(random, plan.names), tokenizer));
    if (next.cost > budget) {
      ++misses;
      continue;
    }
    budget -= next.cost;
    filler.push_back(std::move(next));
  }
  while (true) {
    Sentence best;
    for (int i = 0; i < 12; ++i) {
      FATHOM_TRY(Sentence next, measured(random, short_sentence(random), tokenizer));
      if (next.cost <= budget && next.cost > best.cost) best = std::move(next);
    }
    if (best.cost == 0) break;
    budget -= best.cost;
    filler.push_back(std::move(best));
  }
  random.shuffle(filler);  // the short ones anywhere
  return filler;
}

// Facts among the filler. All but the first needle and what comes after it are put at random.
std::string assemble(TaskRandom& random, const DocumentPlan& plan, const std::vector<Sentence>& filler) {
  struct Placed {
    size_t before;  // this sentence of the filler
    const std::string* text;
  };
  // The depth is one of lengths, not of numbers of sentences.
  int64_t total = 0, passed = 0;
  for (const Sentence& sentence : filler) total += sentence.cost;
  size_t at = 0;
  while (at < filler.size() &&
         static_cast<double>(passed + filler[at].cost / 2) <= plan.depth * static_cast<double>(total)) {
    passed += filler[at++].cost;
  }
  std::vector<Placed> placed;
  for (size_t i = 0; i < plan.needles.size(); ++i) {
    const auto free = static_cast<int64_t>(filler.size() - at + 1);
    placed.push_back({i == 0 ? at : at + static_cast<size_t>(random.below(free)), &plan.needles[i]});
  }
  std::ranges::stable_sort(placed.begin() + 1, placed.end(), {}, &Placed::before);
  for (size_t i = 0; i < placed.size(); ++i) placed[i].text = &plan.needles[i];  // in their order
  for (const std::string& distractor : plan.distractors) {
    placed.push_back({static_cast<size_t>(random.below(static_cast<int64_t>(filler.size()) + 1)), &distractor});
  }
  std::ranges::stable_sort(placed, {}, &Placed::before);
  std::string text;
  size_t next = 0;
  for (size_t i = 0; i <= filler.size(); ++i) {
    for (; next < placed.size() && placed[next].before == i; ++next) text.append(1, ' ').append(*placed[next].text);
    if (i < filler.size()) text += filler[i].text;
  }
  return text.substr(std::min<size_t>(1, text.size()));
}

}  // namespace

Result<Document> write_document(TaskRandom& random, const DocumentPlan& plan) {
  std::string fixed = plan.before + plan.after;
  for (const std::string& sentence : plan.needles) fixed.append(1, ' ').append(sentence);
  for (const std::string& sentence : plan.distractors) fixed.append(1, ' ').append(sentence);
  FATHOM_TRY(const int64_t fixed_cost, measure(plan.tokenizer, fixed));
  if (fixed_cost > plan.length) return Document{};
  int64_t budget = plan.length - fixed_cost;
  Document document;
  // Where the costs did not add up, once more with what was amiss.
  for (int attempt = 0; attempt < 3; ++attempt) {
    FATHOM_TRY(const auto filler, draw_filler(random, budget, plan));
    document.text = assemble(random, plan, filler);
    FATHOM_TRY(const int64_t cost, measure(plan.tokenizer, plan.before + document.text + plan.after));
    const int64_t missing = plan.length - cost;
    document.fits = std::abs(missing) * 20 <= plan.length;
    if (std::abs(missing) * 50 <= plan.length || budget + missing < 0) break;
    budget += missing;
  }
  return document;
}

}  // namespace fathom
