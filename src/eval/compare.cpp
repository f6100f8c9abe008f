#include "eval/compare.h"

#include <map>
#include <tuple>
#include <unordered_map>

#include "base/text_lines.h"
#include "eval/format.h"
#include "text/json.h"

namespace fathom {

namespace {

struct Pair {
  const EvalAnswer *a, *b;
};
using Pairs = std::vector<Pair>;

// Sums by question, in the order in which the questions come.
std::vector<std::pair<std::string_view, int64_t>> differences(const Pairs& pairs) {
  std::vector<std::pair<std::string_view, int64_t>> sums;
  std::unordered_map<std::string_view, size_t> place;
  for (const auto& [a, b] : pairs) {
    const auto [at, is_new] = place.emplace(a->question, sums.size());
    if (is_new) sums.emplace_back(a->question, 0);
    sums[at->second].second += static_cast<int64_t>(b->correct) - static_cast<int64_t>(a->correct);
  }
  return sums;
}

PairedRow pair_row(const Pairs& pairs) {
  std::vector<Observation> a, b, difference;
  for (const Pair& pair : pairs) {
    const double right_a = pair.a->correct ? 1 : 0, right_b = pair.b->correct ? 1 : 0;
    a.push_back({pair.a->question, right_a});
    b.push_back({pair.a->question, right_b});
    difference.push_back({pair.a->question, right_b - right_a});
  }
  PairedRow row;
  row.a = estimate_share(a);
  row.b = estimate_share(b);
  row.difference = estimate_difference(difference);
  row.detectable = detectable_difference(row.difference.interval);
  for (const auto& [question, sum] : differences(pairs)) {
    row.gains += sum > 0;
    row.losses += sum < 0;
  }
  row.p = sign_test(row.gains, row.losses);
  return row;
}

// A row for each value of `key`, a tuple of what tells rows apart, rising.
template <typename Key, typename Name>
std::vector<PairedRow> rows(const Pairs& pairs, const Key& key, const Name& name) {
  std::map<decltype(key(pairs[0])), Pairs> groups;
  for (const Pair& pair : pairs) groups[key(pair)].push_back(pair);
  std::vector<PairedRow> out;
  for (const auto& [value, group] : groups) {
    out.push_back(pair_row(group));
    name(out.back(), *group[0].a);
  }
  return out;
}

Json row_json(const PairedRow& row) {
  Json json = Json::object();
  if (!row.task.empty()) json["task"] = row.task;
  if (row.thinking) json["thinking"] = *row.thinking;
  if (row.length) json["length"] = *row.length;
  json["answers"] = row.difference.answers;
  json["questions"] = row.difference.questions;
  json["accuracy_a"] = row.a.value;
  json["accuracy_b"] = row.b.value;
  json["difference"] = row.difference.value;
  json["low"] = row.difference.interval.low;
  json["high"] = row.difference.interval.high;
  json["detectable"] = row.detectable;
  json["gains"] = row.gains;
  json["losses"] = row.losses;
  json["p"] = row.p;
  return json;
}

Json rows_json(const std::vector<PairedRow>& list) {
  Json json = Json::array();
  for (const PairedRow& row : list) json.push_back(row_json(row));
  return json;
}

void add_row(std::string& out, const PairedRow& row) {
  std::string name = row.task.empty() ? "all" : row.task;
  if (row.length) name = fmt::format("look-ups, {}", *row.length);
  append_line(out, "  {:<20} {:<9} {:>7} {:>6.1f} {:>6.1f}   {:<24} {:>6.1f} {:>6} {:>6}   {:.2g}", name,
              row.thinking ? mode_name(*row.thinking) : "", row.difference.answers, 100 * row.a.value,
              100 * row.b.value, difference_text(row.difference), 100 * row.detectable, row.gains, row.losses, row.p);
}

}  // namespace

Result<Comparison> compare_reports(const EvalReport& a, const EvalReport& b) {
  const EvalSettings &sa = a.run.settings, &sb = b.run.settings;
  if (sa.max_tokens != sb.max_tokens)
    return fail(
        "answers of at most {} tokens, and of at most {}: not to be compared; ask again with the same --max-tokens",
        sa.max_tokens, sb.max_tokens);
  if (sa.samples != sb.samples)
    return fail("{} answers to each question, and {}: not to be compared; ask again with the same --samples",
                sa.samples, sb.samples);
  std::unordered_map<std::string, const EvalAnswer*> of_b;
  for (const EvalAnswer& answer : b.answers) of_b.emplace(answer_key(answer), &answer);
  Pairs pairs;
  for (const EvalAnswer& answer : a.answers)
    if (const auto found = of_b.find(answer_key(answer)); found != of_b.end())
      pairs.push_back({&answer, found->second});
  if (pairs.empty())
    return fail(
        "no question is in both: {} answers of suite {}, seed {}, and {} of suite {}, seed {}; look-ups are the "
        "same only for the same tokenizer",
        a.answers.size(), sa.suite, sa.seed, b.answers.size(), sb.suite, sb.seed);

  Comparison out;
  out.a = a.run;
  out.b = b.run;
  out.pairs = static_cast<int64_t>(pairs.size());
  out.only_a = static_cast<int64_t>(a.answers.size()) - out.pairs;
  out.only_b = static_cast<int64_t>(b.answers.size()) - out.pairs;
  out.overall = pair_row(pairs);
  out.by_mode = rows(
      pairs, [](const Pair& p) { return p.a->thinking; },
      [](PairedRow& row, const EvalAnswer& one) { row.thinking = one.thinking; });
  std::map<std::string_view, size_t> order;  // of the tasks, as they were asked
  for (const Pair& pair : pairs) order.emplace(pair.a->task, order.size());
  out.by_task = rows(
      pairs, [&](const Pair& p) { return std::tuple(order.at(p.a->task), p.a->thinking); },
      [](PairedRow& row, const EvalAnswer& one) { row.task = one.task, row.thinking = one.thinking; });
  Pairs lookups;
  for (const Pair& pair : pairs)
    if (pair.a->length > 0) lookups.push_back(pair);
  if (!lookups.empty())
    out.by_length = rows(
        lookups, [](const Pair& p) { return std::tuple(p.a->length, p.a->thinking); },
        [](PairedRow& row, const EvalAnswer& one) { row.length = one.length, row.thinking = one.thinking; });
  for (const auto& [question, sum] : differences(pairs))
    if (sum != 0) out.flips.emplace_back(question);
  return out;
}

std::string comparison_text(const Comparison& c) {
  std::string out;
  append_line(out, "A: {}", run_text(c.a));
  append_line(out, "B: {}", run_text(c.b));
  append_line(out, "{} answers to {} questions that both have", c.pairs, c.overall.difference.questions);
  if (c.only_a > 0 || c.only_b > 0)
    append_line(out, "the questions differ: {} answers are only in A, {} only in B; they do not count", c.only_a,
                c.only_b);
  append_line(out, "\n  {:<20} {:<9} {:>7} {:>6} {:>6}   {:<24} {:>6} {:>6} {:>6}   p", "", "", "answers", "A %", "B %",
              "B - A (95 %), points", "detect", "gains", "losses");
  for (const auto* list : {&c.by_task, &c.by_length, &c.by_mode}) {
    for (const PairedRow& row : *list) add_row(out, row);
    if (!list->empty()) out += '\n';
  }
  add_row(out, c.overall);
  out +=
      "\ndetect: the difference, in points, that 80 of 100 such comparisons would find. gains, losses: questions that "
      "B\n"
      "got right more, less often. p: of a split at least as uneven if neither were better (McNemar, exact); many "
      "rows\n"
      "are read at once, so some small ones come by chance.\n";
  return out;
}

std::string comparison_json(const Comparison& c) {
  Json json = Json::object();
  json["fathom_eval_comparison"] = 1;
  for (const auto& [name, run] : {std::pair{"a", &c.a}, {"b", &c.b}}) {
    json[name] = {{"model", run->model}, {"checkpoint", run->checkpoint}, {"attention", run->attention}};
  }
  json["answers"] = c.pairs;
  json["only_a"] = c.only_a;
  json["only_b"] = c.only_b;
  json["overall"] = row_json(c.overall);
  json["by_mode"] = rows_json(c.by_mode);
  json["by_task"] = rows_json(c.by_task);
  json["by_length"] = rows_json(c.by_length);
  json["flips"] = c.flips;
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace fathom
