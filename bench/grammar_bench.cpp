// Masks of structured output over the published vocabulary, on one thread: documents of common kinds token by token, each
// mask timed. "first" is a new grammar, whose cache is empty; "again" the same document once more, as the second answer of
// a schema sees it. FATHOM_TOKENIZER names the tokenizer.json or its folder.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/matcher.h"
#include "grammar/token_table.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Vocabulary {
  std::unique_ptr<fathom::Tokenizer> tokenizer;
  std::shared_ptr<const fathom::TokenTable> table;
};

const Vocabulary* vocabulary(benchmark::State& state) {
  static std::string error;
  static const Vocabulary loaded = [] {
    const char* path = std::getenv("FATHOM_TOKENIZER");
    Vocabulary result;
    auto tokenizer = fathom::Tokenizer::load(path == nullptr ? "tokenizer.json" : path);
    if (!tokenizer) {
      error = tokenizer.error().message + " (set FATHOM_TOKENIZER)";
      return result;
    }
    result.tokenizer = *std::move(tokenizer);
    result.table = std::make_shared<const fathom::TokenTable>(*result.tokenizer);
    return result;
  }();
  if (loaded.table != nullptr) return &loaded;
  state.SkipWithError(error.c_str());
  return nullptr;
}

struct Kind {
  const char* name;
  const char* schema;
  const char* document;
};

constexpr const char* kProse =
    "The lightning indexer decides which of the preceding tokens a query attends to; for 128,000 of them it reads 132 "
    "bytes "
    "each. Übergrößenträger und façade, naïve coöperation, (bracketed) and 3.14159 numbers. ";

const Kind kKinds[] = {
    {"json_mode", R"({"type":"object"})",
     R"({"a": [1, 2.5, {"b": null}], "text": "%", "more": {"x": true, "y": "%"}})"},
    {"extraction",
     R"({"type":"object","properties":{"title":{"type":"string"},"summary":{"type":"string","maxLength":2000},
         "year":{"type":"integer","minimum":1900,"maximum":2100},"date":{"type":"string","format":"date"},
         "tags":{"type":"array","items":{"type":"string","maxLength":40},"maxItems":10},
         "mood":{"enum":["good","bad","neutral"]}},
         "required":["title","summary","year","date","tags","mood"],"additionalProperties":false})",
     R"({"title": "Indexers", "summary": "%%", "year": 2025, "date": "2025-09-29", "tags": ["sparse", "attention", "long text"],
)"
     R"("mood": "good"})"},
    {"short_strings",
     R"({"type":"array","items":{"type":"object","properties":{"id":{"type":"string","pattern":"^[A-Z]{2}-[0-9]{4}$"},
         "name":{"type":"string","minLength":1,"maxLength":30},"score":{"type":"number","minimum":0,"maximum":1}},
         "required":["id","name","score"],"additionalProperties":false},"maxItems":50})",
     R"([{"id": "AB-1234", "name": "Jane Doe the third", "score": 0.75}, {"id": "CD-9876", "name": "Jürgen Müller", "score": 1},)"
     R"( {"id": "EF-5555", "name": "Someone else", "score": 0.5}])"},
    {"any_of",
     R"({"$defs":{"node":{"anyOf":[{"type":"object","properties":{"op":{"enum":["+","-","*"]},"left":{"$ref":"#/$defs/node"},
         "right":{"$ref":"#/$defs/node"}},"required":["op","left","right"],"additionalProperties":false},
         {"type":"object","properties":{"op":{"const":"value"},"value":{"type":"number"}},"required":["op","value"],
         "additionalProperties":false}]}},"$ref":"#/$defs/node"})",
     R"({"op": "+", "left": {"op": "value", "value": 3}, "right": {"op": "*", "left": {"op": "value", "value": 4}, )"
     R"("right": {"op": "-", "left": {"op": "value", "value": 1.5}, "right": {"op": "value", "value": -7}}}})"},
};

void masks(benchmark::State& state, const Kind& kind, bool again) {
  const Vocabulary* with = vocabulary(state);
  if (with == nullptr) return;
  std::string text;
  for (const char* c = kind.document; *c != '\0'; ++c) text += *c == '%' ? std::string(kProse) : std::string(1, *c);
  const auto ids = with->tokenizer->encode(text);
  const auto schema = fathom::parse_json(kind.schema, "schema");
  std::vector<double> times;
  fathom::TokenMask mask(with->table->mask_words());
  std::shared_ptr<const fathom::Grammar> grammar;
  for (auto _ : state) {
    state.PauseTiming();
    if (!again || grammar == nullptr) {
      auto made = fathom::Grammar::json_schema(*schema);
      if (!made) return state.SkipWithError(made.error().message.c_str());
      grammar = *std::move(made);
    }
    state.ResumeTiming();
    fathom::GrammarMatcher matcher(grammar, with->table);
    for (const int32_t id : *ids) {
      const auto begin = Clock::now();
      matcher.allowed(mask);
      times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
      if (!fathom::has_bit(mask, id) || !matcher.accept(id)) return state.SkipWithError("the document is refused");
    }
  }
  std::ranges::sort(times);
  state.counters["tokens"] = static_cast<double>(ids->size());
  state.counters["median_us"] = times[times.size() / 2];
  state.counters["p95_us"] = times[times.size() * 95 / 100];
  state.counters["worst_us"] = times.back();
}

void compile(benchmark::State& state, const Kind& kind) {
  const auto schema = fathom::parse_json(kind.schema, "schema");
  for (auto _ : state) benchmark::DoNotOptimize(fathom::Grammar::json_schema(*schema));
}

const bool registered = [] {
  for (const Kind& kind : kKinds) {
    const std::string name = kind.name;
    benchmark::RegisterBenchmark(("first/" + name).c_str(), [&kind](benchmark::State& state) {
      masks(state, kind, false);
    })->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(("again/" + name).c_str(), [&kind](benchmark::State& state) {
      masks(state, kind, true);
    })->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(("compile/" + name).c_str(), [&kind](benchmark::State& state) {
      compile(state, kind);
    })->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace

BENCHMARK_MAIN();
