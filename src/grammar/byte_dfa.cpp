#include "grammar/byte_dfa.h"

#include <utility>

#include "grammar/limits.h"

namespace fathom {

uint32_t ByteDfa::next(uint32_t state, uint8_t byte, bool mark) const {
  for (const Edge& edge : states[state].edges) {
    if (edge.first <= byte && byte <= edge.last && (edge.mark || !mark)) return edge.next;
  }
  return kNone;
}

TextRun ByteDfa::run(uint32_t state) const {
  TextRun run;
  run.characters = kUnlimited;
  uint32_t high = 0;
  for (const Edge& edge : states[state].edges) {
    if (edge.next != state) continue;
    for (uint32_t byte = edge.first; byte <= edge.last; ++byte) {
      if (byte < 0x80) run.add(static_cast<uint8_t>(byte));
      if (byte >= 0x80) ++high;
    }
  }
  if (high == 128) run.high = TextRun::High::kAny;
  if (run.ascii == std::array<uint64_t, 2>{}) run.characters = 0;
  return run;
}

bool ByteDfa::accepts(std::string_view text) const {
  uint32_t state = 0;
  for (const char c : text) {
    state = next(state, static_cast<uint8_t>(c), false);
    if (state == kNone) return false;
  }
  return states[state].accepts;
}

void ByteDfa::trim() {
  std::vector<std::vector<uint32_t>> sources(states.size());
  std::vector<uint32_t> live;
  std::vector<bool> is_live(states.size());
  for (uint32_t s = 0; s < states.size(); ++s) {
    for (const Edge& edge : states[s].edges) sources[edge.next].push_back(s);
    if (states[s].accepts) live.push_back(s), is_live[s] = true;
  }
  while (!live.empty()) {
    const uint32_t s = live.back();
    live.pop_back();
    for (const uint32_t source : sources[s]) {
      if (!is_live[source]) live.push_back(source), is_live[source] = true;
    }
  }
  std::vector<uint32_t> id(states.size(), kNone);
  std::vector<State> kept;
  for (uint32_t s = 0; s < states.size(); ++s) {
    if (s != 0 && !is_live[s]) continue;
    id[s] = static_cast<uint32_t>(kept.size());
    kept.push_back(std::move(states[s]));
  }
  for (State& state : kept) {
    std::erase_if(state.edges, [&](const Edge& edge) { return !is_live[edge.next]; });
    for (Edge& edge : state.edges) edge.next = id[edge.next];
  }
  states = std::move(kept);
}

ByteDfa literal_dfa(std::span<const std::string> texts, bool mark) {
  ByteDfa dfa;
  dfa.states.emplace_back();
  for (const std::string& text : texts) {
    uint32_t state = 0;
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      uint32_t next = dfa.next(state, byte, false);
      if (next == ByteDfa::kNone) {
        next = static_cast<uint32_t>(dfa.states.size());
        dfa.states.emplace_back();
        dfa.states[state].edges.push_back({byte, byte, mark, next});
      }
      state = next;
    }
    dfa.states[state].accepts = true;
  }
  return dfa;
}

ByteDfa white_space_dfa() {
  ByteDfa dfa;
  dfa.states.resize(3 + grammar_limits::kMaxIndent);
  for (ByteDfa::State& state : dfa.states) state.accepts = true;
  dfa.states[0].edges = {{' ', ' ', false, 1}, {'\n', '\n', false, 2}};
  for (uint32_t i = 0; i < grammar_limits::kMaxIndent; ++i) dfa.states[2 + i].edges = {{' ', ' ', false, 3 + i}};
  return dfa;
}

ByteDfa name_dfa(std::string_view excluded, uint32_t most) {
  ByteDfa dfa;
  dfa.states.resize(most + 1);
  for (uint32_t i = 0; i <= most; ++i) {
    dfa.states[i].accepts = i > 0;
    for (uint32_t byte = '!'; i < most && byte <= '~'; ++byte) {
      const auto b = static_cast<uint8_t>(byte);
      if (excluded.find(static_cast<char>(byte)) != std::string_view::npos) continue;
      auto& edges = dfa.states[i].edges;
      if (!edges.empty() && edges.back().last + 1 == b) {
        edges.back().last = b;
      } else {
        edges.push_back({b, b, false, i + 1});
      }
    }
  }
  return dfa;
}

namespace {

// State k: the last k bytes are the mark's first ones (Knuth, Morris, Pratt).
ByteDfa mark_dfa(std::string_view mark, bool with_mark) {
  ByteDfa dfa;
  dfa.states.resize(mark.size() + (with_mark ? 1 : 0));
  uint32_t fallback = 0;  // where the mark's bytes after the first lead
  for (uint32_t k = 0; k < mark.size(); ++k) {
    std::array<uint32_t, 256> next{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
      if (k > 0) next[byte] = dfa.next(fallback, static_cast<uint8_t>(byte), false);
      if (k > 0 && next[byte] == ByteDfa::kNone) next[byte] = 0;
    }
    const auto own = static_cast<uint8_t>(mark[k]);
    const uint32_t after = next[own];
    next[own] = k + 1;
    auto& edges = dfa.states[k].edges;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const auto b = static_cast<uint8_t>(byte);
      if (next[byte] >= dfa.states.size()) continue;  // the mark would be complete
      if (b != own && !edges.empty() && !edges.back().mark && edges.back().next == next[byte] &&
          edges.back().last + 1 == b) {
        edges.back().last = b;
      } else {
        edges.push_back({b, b, b == own, next[byte]});
      }
    }
    if (k > 0) fallback = after;
    dfa.states[k].accepts = !with_mark;
  }
  if (with_mark) dfa.states.back().accepts = true;
  return dfa;
}

}  // namespace

ByteDfa text_without_dfa(std::string_view mark) { return mark_dfa(mark, false); }
ByteDfa text_up_to_dfa(std::string_view mark) { return mark_dfa(mark, true); }

}  // namespace fathom
