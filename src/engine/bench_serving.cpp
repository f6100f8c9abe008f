#include "engine/bench_serving.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "base/text_lines.h"
#include "engine/batcher.h"
#include "engine/block_store.h"
#include "engine/identity.h"
#include "text/json.h"

namespace fathom {

namespace {

using Clock = std::chrono::steady_clock;

// Tokens of each stream before and after the long prompt.
constexpr int64_t kGapsAlone = 128;

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// When each token of a stream came.
using Times = std::vector<Clock::time_point>;

Gaps gaps_of(const std::vector<Times>& streams, Clock::time_point begin, Clock::time_point end) {
  std::vector<double> all;
  for (const Times& times : streams)
    for (size_t i = 1; i < times.size(); ++i)
      if (times[i - 1] >= begin && times[i] <= end) all.push_back(seconds(times[i] - times[i - 1]));
  std::ranges::sort(all);
  if (all.empty()) return {};
  const double mean = std::accumulate(all.begin(), all.end(), 0.0) / static_cast<double>(all.size());
  return {all[all.size() / 2], mean, all[all.size() * 95 / 100], all.back(), static_cast<int64_t>(all.size())};
}

class ServingBench {
 public:
  ServingBench(Engine& engine, const ServingBenchSettings& settings, const std::atomic<bool>& cancel)
      : engine_(engine), settings_(settings), cancel_(cancel) {}

  StreamsResult streams(int64_t count, bool draft) {
    engine_.kv_pool().forget();
    // Prompts are read at once: what is measured begins after the last of them.
    Batcher batcher(engine_, {.max_running = count, .draft = draft, .slowdown = 1e6});
    std::vector<Times> times(static_cast<size_t>(count));
    for (Times& its : times) submit(batcher, noise(settings_.prompt), settings_.generate, its);
    while (!cancel_ && batcher.step()) {
    }
    // While all of them were under way.
    Clock::time_point begin{}, end = Clock::time_point::max();
    for (const Times& t : times) {
      if (t.empty()) return {};
      begin = std::max(begin, t.front());
      end = std::min(end, t.back());
    }
    int64_t tokens = 0;
    for (const Times& t : times) tokens += std::ranges::count_if(t, [&](auto at) { return at > begin && at <= end; });
    const BatcherStats stats = batcher.stats();
    return {count, draft, static_cast<double>(tokens) / std::max(seconds(end - begin), 1e-9), stats.drafted,
            stats.accepted};
  }

  Status gaps(ServingReport& report) {
    engine_.kv_pool().forget();
    Batcher batcher(engine_, {.max_running = settings_.gap_streams + 1, .draft = false});
    std::vector<Times> times(static_cast<size_t>(settings_.gap_streams));
    Times long_one;
    const int64_t endless = engine_.context() - settings_.prompt;
    for (Times& t : times) submit(batcher, noise(settings_.prompt), endless, t);
    const auto run_until = [&](const auto& reached) {
      while (!cancel_ && !reached() && batcher.step()) {
      }
    };
    const auto shortest = [&] { return std::ranges::min(times, {}, [](const Times& t) { return t.size(); }).size(); };
    const auto alone = [&] {
      const auto begin = Clock::now();
      const size_t before = shortest();
      run_until([&] { return shortest() >= before + kGapsAlone; });
      return gaps_of(times, begin, Clock::now());
    };
    run_until([&] { return shortest() >= 1; });
    report.gaps_before = alone();
    const auto asked = Clock::now();
    submit(batcher, noise(settings_.long_prompt), 1, long_one);
    run_until([&] { return !long_one.empty(); });
    const auto answered = Clock::now();
    report.gaps_beside = gaps_of(times, asked, answered);
    report.long_prompt_seconds = seconds(answered - asked);
    report.gaps_after = alone();
    if (!cancel_ && (batcher.stats().preempted > 0 || batcher.stats().running < settings_.gap_streams))
      return fail("streams ended, or were put back, before the prompt of {} tokens was read: a smaller --long-prompt",
                  settings_.long_prompt);
    return {};
  }

  // To the first token of a prompt that is the prefix and a few tokens more.
  double first_token(Batcher& batcher, const std::vector<int32_t>& prefix) {
    std::vector<int32_t> prompt = prefix;
    const auto more = noise(16);
    prompt.insert(prompt.end(), more.begin(), more.end());
    Times times;
    const auto start = Clock::now();
    submit(batcher, std::move(prompt), 1, times);
    while (!cancel_ && batcher.step()) {
    }
    return times.empty() ? 0 : seconds(times.front() - start);
  }

  std::vector<int32_t> noise(int64_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    // Ids of the first half are text in all vocabularies.
    for (int32_t& token : tokens)
      token = 3 + static_cast<int32_t>(random_() % static_cast<uint64_t>(engine_.config().vocab_size / 2));
    return tokens;
  }

 private:
  void submit(Batcher& batcher, std::vector<int32_t> prompt, int64_t tokens, Times& times) {
    BatchRequest request;
    request.generation.prompt = std::move(prompt);
    request.generation.sampling.temperature = 0;
    request.generation.max_tokens = tokens;
    request.generation.ignore_eos = true;
    request.on_text = [&times](int64_t, std::string_view, std::span<const SampledToken> taken) {
      times.insert(times.end(), taken.size(), Clock::now());
    };
    // The settings are checked: a prompt that does not fit is an empty result.
    (void)batcher.submit(std::move(request));
  }

  Engine& engine_;
  const ServingBenchSettings& settings_;
  const std::atomic<bool>& cancel_;
  std::mt19937_64 random_{1};
};

}  // namespace

Result<ServingReport> bench_serving(const std::filesystem::path& model, EngineSettings engine_settings,
                                    const ServingBenchSettings& settings,
                                    const std::function<void(std::string_view what)>& on_part,
                                    const std::atomic<bool>& cancel) {
  const int64_t most = settings.streams.empty() ? 0 : std::ranges::max(settings.streams);
  int64_t cache = most * (settings.prompt + settings.generate);
  int64_t context = settings.prompt + settings.generate;
  if (settings.gap_streams > 0) {
    // At worst each stream takes a token for each of the long prompt.
    const int64_t answers = settings.prompt + settings.long_prompt + 2 * kGapsAlone + 64;
    cache = std::max(cache, settings.gap_streams * answers + settings.long_prompt);
    context = std::max({context, settings.long_prompt + 64, answers});
  }
  if (settings.prefix > 0) context = std::max(context, settings.prefix + 64);
  engine_settings.context = context;
  engine_settings.cache = std::max(cache, context) + 64 * (most + settings.gap_streams);
  FATHOM_TRY(auto engine, Engine::open(model, engine_settings));
  ServingReport report;
  report.model = model.string();
  report.isa = isa_name(engine->isa());
  report.threads = engine->threads();
  report.machine = describe_machine();

  std::optional<ServingBench> bench(std::in_place, *engine, settings, cancel);
  const bool has_mtp = engine->config().num_nextn_predict_layers > 0;
  for (const int64_t count : settings.streams)
    for (const bool draft : {false, true}) {
      if (draft && !(settings.draft && has_mtp)) continue;
      on_part(fmt::format("{} streams{}", count, draft ? " with drafts" : ""));
      report.streams.push_back(bench->streams(count, draft));
    }
  if (settings.gap_streams > 0) {
    on_part(fmt::format("{} streams beside a prompt of {} tokens", settings.gap_streams, settings.long_prompt));
    FATHOM_RETURN_IF_ERROR(bench->gaps(report));
  }
  if (settings.prefix > 0 && !cancel) {
    on_part(fmt::format("a prefix of {} tokens", settings.prefix));
    engine->kv_pool().forget();
    const std::vector<int32_t> prefix = bench->noise(settings.prefix);
    std::unique_ptr<BlockStore> store;
    FATHOM_TRY(const std::string identity, cache_identity(*engine));
    const auto open_store = [&]() -> Status {
      if (settings.cache_dir.empty()) return {};
      store.reset();
      const int64_t bytes = 2 * engine->kv_pool().block_bytes() * (settings.prefix / kBlockTokens + 8);
      FATHOM_TRY(store, BlockStore::open({settings.cache_dir, bytes, bytes}));
      return {};
    };
    FATHOM_RETURN_IF_ERROR(open_store());
    {
      Batcher batcher(*engine, {.draft = false, .store = store.get(), .identity = identity});
      report.first_token_cold = bench->first_token(batcher, prefix);
      report.first_token_ram = bench->first_token(batcher, prefix);
    }
    if (store) {
      store->flush();
      bench.reset();
      engine.reset();
      FATHOM_TRY(engine, Engine::open(model, engine_settings));
      FATHOM_RETURN_IF_ERROR(open_store());
      bench.emplace(*engine, settings, cancel);
      Batcher batcher(*engine, {.draft = false, .store = store.get(), .identity = identity});
      report.first_token_disk = bench->first_token(batcher, prefix);
    }
  }
  if (cancel) return fail("stopped before all was measured");
  return report;
}

std::string serving_text(const ServingReport& r, const ServingBenchSettings& settings) {
  std::string out;
  append_line(out, "{}, {} cores; {}, {} thread{}", r.machine.cpu, r.machine.cores, r.isa, r.threads,
              r.threads == 1 ? "" : "s");
  if (!r.streams.empty()) {
    append_line(out, "\n{:>8}{:>8}{:>12}{:>10}{:>12}", "streams", "drafts", "tokens/s", "of one", "accepted");
    const double one = r.streams.front().tokens_per_second;
    for (const StreamsResult& s : r.streams)
      append_line(out, "{:>8}{:>8}{:>12.1f}{:>10.2f}{:>12}", s.streams, s.draft ? "yes" : "no", s.tokens_per_second,
                  s.tokens_per_second / one,
                  s.drafted > 0 ? fmt::format("{:.0f} %",
                                              100.0 * static_cast<double>(s.accepted) / static_cast<double>(s.drafted))
                                : "");
  }
  if (r.gaps_before && r.gaps_beside && r.gaps_after) {
    append_line(out, "\nms between tokens of {} streams{:>10}{:>10}{:>10}{:>10}", settings.gap_streams, "median",
                "mean", "95 %", "most");
    const auto row = [&](std::string_view name, const Gaps& g) {
      append_line(out, "  {:<30}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}", name, 1e3 * g.median, 1e3 * g.mean, 1e3 * g.p95,
                  1e3 * g.most);
    };
    row("before", *r.gaps_before);
    row(fmt::format("beside {} tokens of prompt", settings.long_prompt), *r.gaps_beside);
    row("after", *r.gaps_after);
    // The streams' own growth is not the prompt's doing.
    const auto ratio = [&](double Gaps::*of) {
      return (*r.gaps_beside).*of / ((*r.gaps_before).*of + (*r.gaps_after).*of) * 2;
    };
    append_line(out, "  beside, of the mean of before and after: median {:.2f} ×, mean {:.2f} ×, 95 % {:.2f} ×",
                ratio(&Gaps::median), ratio(&Gaps::mean), ratio(&Gaps::p95));
    append_line(out, "  the prompt took {:.1f} s", r.long_prompt_seconds);
  }
  if (settings.prefix > 0) {
    append_line(out, "\nfirst token after {} tokens that were read before", settings.prefix);
    append_line(out, "  not in the cache {:>10.3f} s", r.first_token_cold);
    append_line(out, "  from RAM         {:>10.3f} s  {:.0f} × sooner", r.first_token_ram,
                r.first_token_cold / r.first_token_ram);
    if (r.first_token_disk)
      append_line(out, "  from disk        {:>10.3f} s  {:.1f} × sooner", *r.first_token_disk,
                  r.first_token_cold / *r.first_token_disk);
  }
  return out;
}

std::string serving_json(const ServingReport& r, const ServingBenchSettings& settings) {
  Json streams = Json::array();
  for (const StreamsResult& s : r.streams)
    streams.push_back({{"streams", s.streams},
                       {"draft", s.draft},
                       {"tokens_per_second", s.tokens_per_second},
                       {"drafted", s.drafted},
                       {"accepted", s.accepted}});
  const auto gaps = [](const std::optional<Gaps>& g) {
    return g ? Json{{"median", g->median}, {"mean", g->mean}, {"p95", g->p95}, {"most", g->most}, {"count", g->count}}
             : Json();
  };
  const Json json{{"fathom_bench_serving", 1},
                  {"model", r.model},
                  {"isa", r.isa},
                  {"threads", r.threads},
                  {"cpu", r.machine.cpu},
                  {"prompt", settings.prompt},
                  {"generate", settings.generate},
                  {"streams", std::move(streams)},
                  {"gap_seconds",
                   {{"before", gaps(r.gaps_before)}, {"beside", gaps(r.gaps_beside)}, {"after", gaps(r.gaps_after)}}},
                  {"long_prompt", {{"tokens", settings.long_prompt}, {"seconds", r.long_prompt_seconds}}},
                  {"prefix",
                   {{"tokens", settings.prefix},
                    {"cold_seconds", r.first_token_cold},
                    {"ram_seconds", r.first_token_ram},
                    {"disk_seconds", r.first_token_disk ? Json(*r.first_token_disk) : Json()}}}};
  return json.dump(2) + "\n";
}

}  // namespace fathom
