#include "grammar/text_dfa.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/quote.h"
#include "grammar/limits.h"
#include "text/utf8.h"

namespace fathom {

namespace {

constexpr char32_t kSurrogates = 0xD800, kAfterSurrogates = 0xE000;

Status check_size(size_t states, size_t classes) {
  if (states > grammar_limits::kMaxTextStates || states * classes > grammar_limits::kMaxTableEntries) {
    return fail("needs more than {} states, or {} entries of its table of transitions; make it simpler",
                grammar_limits::kMaxTextStates, grammar_limits::kMaxTableEntries);
  }
  return {};
}

}  // namespace

CharacterSet::CharacterSet(std::initializer_list<Range> ranges) {
  for (const Range& range : ranges) add(range.first, range.last);
}

void CharacterSet::add(char32_t first, char32_t last) {
  if (first < kSurrogates && last >= kAfterSurrogates) {
    add(first, kSurrogates - 1);
    add(kAfterSurrogates, last);
    return;
  }
  if (first >= kSurrogates && first < kAfterSurrogates) first = kAfterSurrogates;
  if (last >= kSurrogates && last < kAfterSurrogates) last = kSurrogates - 1;
  if (first > last) return;
  std::vector<Range> merged;
  bool placed = false;
  for (const Range& range : ranges_) {
    if (range.last + 1 < first) {
      merged.push_back(range);
    } else if (last + 1 < range.first) {
      if (!std::exchange(placed, true)) merged.push_back({first, last});
      merged.push_back(range);
    } else {
      first = std::min(first, range.first);
      last = std::max(last, range.last);
    }
  }
  if (!placed) merged.push_back({first, last});
  ranges_ = std::move(merged);
}

void CharacterSet::add(const CharacterSet& other) {
  for (const Range& range : other.ranges_) add(range.first, range.last);
}

CharacterSet CharacterSet::complement() const {
  CharacterSet result;
  char32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) result.add(next, range.first - 1);
    next = range.last + 1;
  }
  if (next <= kLastCharacter) result.add(next, kLastCharacter);
  return result;
}

bool CharacterSet::contains(char32_t c) const {
  return std::ranges::any_of(ranges_, [c](const Range& range) { return range.first <= c && c <= range.last; });
}

uint32_t CharacterClasses::of(char32_t c) const {
  return classes[static_cast<size_t>(std::ranges::upper_bound(starts, c) - starts.begin()) - 1];
}

CharacterClasses CharacterClasses::of_sets(std::span<const CharacterSet> sets) {
  struct Event {
    char32_t at;
    size_t set;
  };
  std::vector<Event> events;
  for (size_t s = 0; s < sets.size(); ++s) {
    for (const auto& range : sets[s].ranges()) {
      events.push_back({range.first, s});
      events.push_back({range.last + 1, s});
    }
  }
  std::ranges::sort(events, {}, &Event::at);
  CharacterClasses result;
  result.starts.clear();
  result.classes.clear();
  // A class is a set of sets; as the events pass, sets come and go.
  std::vector<bool> inside(sets.size());
  std::map<std::vector<bool>, uint32_t> ids;
  size_t e = 0;
  for (char32_t at = 0; at <= kLastCharacter;) {
    for (; e < events.size() && events[e].at == at; ++e) inside[events[e].set] = !inside[events[e].set];
    const uint32_t id = ids.try_emplace(inside, static_cast<uint32_t>(ids.size())).first->second;
    result.starts.push_back(at);
    result.classes.push_back(id);
    if (e == events.size()) break;
    at = events[e].at;
  }
  result.count = static_cast<uint32_t>(ids.size());
  return result;
}

CharacterClasses CharacterClasses::of_characters(const std::set<char32_t>& characters) {
  CharacterClasses result;
  result.starts.clear();
  result.classes.clear();
  result.count = 1;
  char32_t at = 0;
  const auto others = [&] {
    result.starts.push_back(at);
    result.classes.push_back(0);
  };
  for (const char32_t c : characters) {
    if (at < c) others();
    result.starts.push_back(c);
    result.classes.push_back(result.count++);
    at = c + 1;
  }
  if (at <= kLastCharacter) others();
  return result;
}

bool TextDfa::empty() const { return std::ranges::find(accepts, true) == accepts.end(); }

bool TextDfa::matches(std::string_view utf8) const {
  uint32_t state = 0;
  while (!utf8.empty()) {
    const Utf8Step step = utf8_step(utf8);
    if (step.kind != Utf8Kind::kValid) return false;
    state = next(state, classes.of(utf8_decode(utf8.substr(0, step.size))));
    if (state == kNone) return false;
    utf8.remove_prefix(step.size);
  }
  return accepts[state];
}

void TextDfa::trim() {
  const size_t n = states();
  std::vector<std::vector<uint32_t>> sources(n);
  std::vector<uint32_t> live;
  std::vector<bool> is_live(n);
  for (uint32_t s = 0; s < n; ++s) {
    for (uint32_t c = 0; c < classes.count; ++c) {
      const uint32_t target = next(s, c);
      if (target != kNone && (sources[target].empty() || sources[target].back() != s)) sources[target].push_back(s);
    }
    if (accepts[s]) live.push_back(s), is_live[s] = true;
  }
  while (!live.empty()) {
    const uint32_t s = live.back();
    live.pop_back();
    for (const uint32_t source : sources[s]) {
      if (!is_live[source]) live.push_back(source), is_live[source] = true;
    }
  }
  std::vector<uint32_t> id(n, kNone);
  uint32_t kept = 0;
  for (uint32_t s = 0; s < n; ++s) {
    if (s == 0 || is_live[s]) id[s] = kept++;
  }
  std::vector<uint32_t> new_table;
  std::vector<bool> new_accepts;
  new_table.reserve(kept * classes.count);
  for (uint32_t s = 0; s < n; ++s) {
    if (id[s] == kNone) continue;
    for (uint32_t c = 0; c < classes.count; ++c) {
      const uint32_t target = next(s, c);
      new_table.push_back(target == kNone || !is_live[target] ? kNone : id[target]);
    }
    new_accepts.push_back(accepts[s]);
  }
  table = std::move(new_table);
  accepts = std::move(new_accepts);
}

Result<TextDfa> intersection(const TextDfa& a, const TextDfa& b) {
  if (a.is_any()) return b;
  if (b.is_any()) return a;
  TextDfa result;
  // Classes of the product are pairs of classes.
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> class_ids;
  std::vector<char32_t> starts = a.classes.starts;
  starts.insert(starts.end(), b.classes.starts.begin(), b.classes.starts.end());
  std::ranges::sort(starts);
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  result.classes.starts = starts;
  result.classes.classes.clear();
  for (const char32_t start : starts) {
    const std::pair pair(a.classes.of(start), b.classes.of(start));
    result.classes.classes.push_back(
        class_ids.try_emplace(pair, static_cast<uint32_t>(class_ids.size())).first->second);
  }
  result.classes.count = static_cast<uint32_t>(class_ids.size());

  std::map<std::pair<uint32_t, uint32_t>, uint32_t> ids{{{0, 0}, 0}};
  std::vector<std::pair<uint32_t, uint32_t>> states{{0, 0}};
  result.table.clear();
  result.accepts.clear();
  for (size_t s = 0; s < states.size(); ++s) {
    const auto [x, y] = states[s];
    result.accepts.push_back(a.accepts[x] && b.accepts[y]);
    result.table.resize((s + 1) * result.classes.count, TextDfa::kNone);
    for (const auto& [pair, c] : class_ids) {
      const uint32_t u = a.next(x, pair.first), v = b.next(y, pair.second);
      if (u == TextDfa::kNone || v == TextDfa::kNone) continue;
      const auto [found, is_new] = ids.try_emplace({u, v}, static_cast<uint32_t>(states.size()));
      if (is_new) states.push_back(found->first);
      result.table[s * result.classes.count + c] = found->second;
    }
    FATHOM_RETURN_IF_ERROR(check_size(states.size(), result.classes.count));
  }
  result.trim();
  return result;
}

Result<TextDfa> with_length(const TextDfa& a, uint32_t at_least, uint32_t at_most) {
  if (at_least == 0 && at_most == kUnlimited) return a;
  if (at_least > at_most) at_least = at_most = 0;  // refused before; keeps the automaton of a count well formed
  // An automaton that counts; beyond the last bound that matters it stays where it is.
  TextDfa count;
  const size_t last = at_most == kUnlimited ? at_least : at_most;
  FATHOM_RETURN_IF_ERROR(check_size(last + 1, 1));
  count.table.clear();
  count.accepts.clear();
  for (uint32_t s = 0; s <= last; ++s) {
    count.table.push_back(s < last ? s + 1 : (at_most == kUnlimited ? s : TextDfa::kNone));
    count.accepts.push_back(s >= at_least);
  }
  return intersection(a, count);
}

TextDfa text_without(std::u32string_view part) {
  std::vector<CharacterSet> sets;
  for (const char32_t c : part) sets.push_back({{c, c}});
  TextDfa result;
  result.classes = CharacterClasses::of_sets(sets);
  result.table.assign(part.size() * result.classes.count, 0);
  result.accepts.assign(part.size(), true);
  for (size_t state = 0; state < part.size(); ++state) {
    for (const char32_t c : part) {
      std::u32string text(part.substr(0, state));
      text += c;
      while (!part.starts_with(text)) text.erase(0, 1);
      const bool whole = text.size() == part.size();
      result.table[state * result.classes.count + result.classes.of(c)] =
          whole ? TextDfa::kNone : static_cast<uint32_t>(text.size());
    }
  }
  return result;
}

Result<TextDfa> all_but(std::span<const std::string> texts) {
  if (texts.empty()) return TextDfa::any();
  std::set<char32_t> characters;  // that occur: each a class of its own
  std::vector<std::u32string> decoded;
  for (std::string_view text : texts) {
    std::u32string& out = decoded.emplace_back();
    while (!text.empty()) {
      const Utf8Step step = utf8_step(text);
      if (step.kind != Utf8Kind::kValid) return fail("not UTF-8: {}", in_quotes(text));
      out += utf8_decode(text.substr(0, step.size));
      characters.insert(out.back());
      text.remove_prefix(step.size);
    }
  }
  TextDfa result;
  result.classes = CharacterClasses::of_characters(characters);
  const uint32_t classes = result.classes.count;
  // State 1 is beyond all texts; the others are the beginnings of texts.
  result.table.assign(2 * classes, 1);
  result.accepts = {true, true};
  for (const std::u32string& text : decoded) {
    uint32_t state = 0;
    for (const char32_t c : text) {
      uint32_t& next = result.table[state * classes + result.classes.of(c)];
      if (next == 1) {
        next = static_cast<uint32_t>(result.accepts.size());
        state = next;
        result.accepts.push_back(true);
        result.table.resize(result.accepts.size() * classes, 1);
        FATHOM_RETURN_IF_ERROR(check_size(result.states(), classes));
      } else {
        state = next;
      }
    }
    result.accepts[state] = false;
  }
  return result;
}

}  // namespace fathom
