#include "engine/bench.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "base/clock.h"
#include "engine/kv_pool.h"
#include "ops/indexer.h"

namespace fathom {

namespace {

using Clock = std::chrono::steady_clock;

// The name of the run, for people who compare it.
std::string attention_name(const ModelConfig& config, const RunnerSettings& runner) {
  if (runner.isa == Isa::kReference) return "reference";
  return runner.dense_attention || !config.sparse() ? "dense" : "sparse";
}

std::string_view latent_format_name(LatentFormat format) {
  switch (format) {
    case LatentFormat::kBf16:
      return "bf16";
    case LatentFormat::kFp8:
      return "fp8";
    case LatentFormat::kF32:
      return "f32";
  }
  return "";
}

int64_t block_rows(int64_t tokens) { return blocks_for(tokens) * kBlockTokens; }

class Bench {
 public:
  Bench(const WeightStore& store, const BenchSettings& settings, const BenchProgress& on_progress,
        const std::atomic<bool>& cancel)
      : store_(store), s_(settings), on_progress_(on_progress), cancel_(cancel), threads_(settings.threads) {}

  Result<std::vector<BenchReport>> run() {
    FATHOM_RETURN_IF_ERROR(prepare());
    probe_.emplace(threads_, s_.runner.isa);
    reset_peak_resident_bytes();
    for (Variant& v : variants_) v.runner = make_cpu_runner(store_, v.settings, threads_);
    FATHOM_RETURN_IF_ERROR(fill(s_.depths.front()));
    const MachineLimits before = probe();
    for (const int64_t depth : s_.depths) FATHOM_RETURN_IF_ERROR(measure(depth));
    const uint64_t resident = peak_resident_bytes();
    std::vector<BenchReport> reports;
    for (Variant& v : variants_) {
      v.report.limits_before = before;
      v.report.limits_after = limits_;
      v.report.scratch_bytes = v.runner->scratch_bytes();
      v.report.peak_resident_bytes = resident - std::min(resident, probe_->memory_bytes());
      reports.push_back(std::move(v.report));
    }
    return reports;
  }

 private:
  // What is measured in turn.
  struct Variant {
    RunnerSettings settings;
    std::unique_ptr<Runner> runner{};
    BenchReport report{};
  };

  Status prepare() {
    std::sort(s_.depths.begin(), s_.depths.end(), std::greater<>());  // deepest first: the cache is filled once
    s_.depths.erase(std::unique(s_.depths.begin(), s_.depths.end()), s_.depths.end());
    FATHOM_CHECK(!s_.depths.empty() && s_.depths.back() >= 0 && s_.batch >= 1 && s_.repeat >= 1 && s_.chunk >= 1,
                 "{} depths, batch {}, {} repetitions, chunk {}", s_.depths.size(), s_.batch, s_.repeat, s_.chunk);
    if (s_.prompt == 0 && s_.generate == 0) return fail("nothing to measure: prompt and generated tokens are both 0");
    const int64_t longest = store_.config().max_position_embeddings, depth = s_.depths.front();
    const int64_t more = std::max(s_.prompt, s_.generate);
    if (more > longest || depth > longest - more)
      return fail("depth {} and {} tokens more: the model has a context of {} (max_position_embeddings); choose less",
                  depth, more, longest);
    if (s_.runner.isa == Isa::kReference) s_.latent_format = LatentFormat::kF32;
    layout_ = kv_layout(store_.config(), s_.latent_format);
    // Only the first sequence prefills.
    rows_ = block_rows(depth + more) + (s_.batch - 1) * block_rows(depth + s_.generate);
    const int64_t layers = store_.config().total_layers();
    const double bytes = static_cast<double>(rows_) * static_cast<double>(layers * layout_.token_bytes());
    if (const uint64_t memory = describe_machine().memory_bytes; memory > 0 && bytes > static_cast<double>(memory))
      return fail("{} sequence{} of {} tokens take {:.1f} GB of cache, and this machine has {:.1f} GB: choose less",
                  s_.batch, s_.batch == 1 ? "" : "s", depth + more, bytes * 1e-9, static_cast<double>(memory) * 1e-9);
    FATHOM_TRY(auto pool, KvPool::create(layout_, layers, rows_));
    pool_.emplace(std::move(pool));
    for (int64_t i = 0; i < s_.batch; ++i) sequences_.emplace_back(*pool_);
    variants_.push_back({s_.runner});
    if (s_.beside_dense) {
      FATHOM_CHECK(!s_.runner.dense_attention, "dense attention beside itself");
      if (!store_.config().sparse())
        return fail("{}: has no indexer, nothing to set beside dense attention; measure it alone",
                    store_.folder().string());
      if (s_.runner.isa == Isa::kReference)
        return fail("FATHOM_ISA=reference: the reference is measured alone; use --attention reference");
      variants_.push_back({s_.runner});
      variants_.back().settings.dense_attention = true;
    }
    for (Variant& v : variants_) v.report = describe(v.settings);
    if (s_.beside_dense) {
      variants_[0].report.in_turn_with = variants_[1].report.attention;
      variants_[1].report.in_turn_with = variants_[0].report.attention;
    }
    return {};
  }

  BenchReport describe(const RunnerSettings& settings) const {
    BenchReport r;
    r.model = store_.folder().string();
    r.model_type = store_.config().model_type;
    r.attention = attention_name(store_.config(), settings);
    r.numerics = settings.numerics == Numerics::kW8A8 ? "w8a8" : "w8a16";
    r.kv = latent_format_name(s_.latent_format);
    r.isa = isa_name(settings.isa);
    r.threads = threads_.threads();
    r.context = store_.config().max_position_embeddings;
    r.prompt = s_.prompt;
    r.generate = s_.generate;
    r.batch = s_.batch;
    r.repeat = s_.repeat;
    r.chunk = s_.chunk;
    r.cache_content = s_.noise_in_cache ? "noise" : "computed";
    r.machine = describe_machine();
    r.cache_token_bytes = store_.config().total_layers() * layout_.token_bytes();
    r.cache_tokens = rows_;
    r.weight_bytes = store_.mapped_bytes();
    return r;
  }

  MachineLimits probe() { return limits_ = probe_->limits(); }

  Status stop() const { return fail("interrupted before all was measured: nothing is reported"); }

  // Tokens are noise: they reach experts evenly, and no two sequences are alike.
  std::vector<int32_t> noise(int64_t count) {
    const uint64_t vocab = static_cast<uint64_t>(store_.config().vocab_size);
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) token = static_cast<int32_t>(random_() % vocab);
    return tokens;
  }

  // Rows [start, start + count) of the first `sequences` sequences, in one step.
  void step(Runner& runner, int64_t sequences, int64_t start, int64_t count, bool prompt, bool want_logits,
            StepProfile* profile) {
    const std::vector<int32_t> tokens = noise(sequences * count);
    std::vector<Slice> slices;
    std::vector<int32_t> last_rows;
    for (int64_t i = 0; i < sequences; ++i) {
      KvSequence& sequence = sequences_[static_cast<size_t>(i)];
      FATHOM_CHECK(sequence.reserve(start + count), "no room for {} rows", start + count);
      slices.push_back({start, count, sequence.blocks(), prompt});
      last_rows.push_back(static_cast<int32_t>((i + 1) * count - 1));
    }
    Step step;
    step.tokens = tokens;
    step.slices = slices;
    step.kv = &pool_->cache();
    if (want_logits) step.logit_rows = last_rows;
    step.profile = profile;
    runner.forward(step);
    done_ = std::min(done_ + step.rows(), task_tokens_);  // what is not counted comes between two tasks
    if (task_tokens_ > 0) on_progress_(task_, done_, task_tokens_);
  }

  void begin(std::string task, int64_t tokens) {
    task_ = std::move(task);
    task_tokens_ = tokens;
    done_ = 0;
  }

  // Prefills rows [start, start + count) of the first sequence; false when cancelled.
  bool prefill(Runner& runner, int64_t start, int64_t count, bool want_logits, StepProfile* profile) {
    for (int64_t done = 0; done < count;) {
      if (cancel_) return false;
      const int64_t rows = std::min(s_.chunk, count - done);
      step(runner, 1, start + done, rows, true, want_logits && done + rows == count, profile);
      done += rows;
    }
    return true;
  }

  // Rows [0, depth) of the first sequence, of normal distribution as normed rows are; false when cancelled.
  bool make_noise(int64_t depth) {
    KvSequence& sequence = sequences_[0];
    FATHOM_CHECK(sequence.reserve(depth), "no room for {} rows", depth);
    std::normal_distribution<float> normal;
    std::vector<float> latent(static_cast<size_t>(layout_.rank)), rope(static_cast<size_t>(layout_.rope_dim)),
        key(static_cast<size_t>(layout_.index_dim));
    for (int64_t s = 0; s < depth; ++s) {
      if (cancel_) return false;
      for (int64_t layer = 0; layer < store_.config().total_layers(); ++layer) {
        const KvRows rows{&pool_->cache(), layer, sequence.blocks()};
        for (std::vector<float>* values : {&latent, &rope, &key})
          for (float& x : *values) x = normal(random_);
        ref::write_latent_row(rows, s, latent.data(), rope.data());
        if (!key.empty()) ref::write_index_key(rows, s, key.data());
      }
      if ((s + 1) % kBlockTokens == 0 || s + 1 == depth) on_progress_(task_, s + 1, depth);
    }
    return true;
  }

  // Rows [0, depth) of every sequence: made for the first, copied to the others.
  Status fill(int64_t depth) {
    begin("filling the cache", depth);
    if (!(s_.noise_in_cache ? make_noise(depth) : prefill(*variants_[0].runner, 0, depth, false, nullptr)))
      return stop();
    const KvCache& cache = pool_->cache();
    for (int64_t i = 1; i < s_.batch; ++i) {
      KvSequence& sequence = sequences_[static_cast<size_t>(i)];
      FATHOM_CHECK(sequence.reserve(depth), "no room for {} rows", depth);
      for (int64_t layer = 0; layer < store_.config().total_layers(); ++layer)
        for (int64_t b = 0; b < sequence.block_count(); ++b) {
          const int32_t from = sequences_[0].blocks()[b], to = sequence.blocks()[b];
          std::memcpy(cache.latent_block(layer, to), cache.latent_block(layer, from),
                      static_cast<size_t>(cache.latent_block_bytes()));
          if (const int64_t bytes = cache.index_block_bytes(); bytes > 0)
            std::memcpy(cache.index_block(layer, to), cache.index_block(layer, from), static_cast<size_t>(bytes));
        }
    }
    return {};
  }

  Status measure(int64_t depth) {
    for (KvSequence& sequence : sequences_) sequence.truncate(depth);
    for (Variant& v : variants_) v.report.depths.insert(v.report.depths.begin(), DepthReport{.depth = depth});
    if (s_.prompt > 0) {
      for (Variant& v : variants_) {
        // Not counted: scratch memory grows, pages of the cache are taken.
        if (!prefill(*v.runner, depth, std::min(s_.chunk, s_.prompt), true, nullptr)) return stop();
        PhaseReport& phase = v.report.depths.front().prefill.emplace(PhaseReport{.tokens = s_.prompt});
        for (int64_t done = 0; done < s_.prompt; done += s_.chunk)
          phase.work += work(v, {1, depth + done, std::min(s_.chunk, s_.prompt - done), done + s_.chunk >= s_.prompt});
      }
      FATHOM_RETURN_IF_ERROR(repeat(
          &DepthReport::prefill, fmt::format("prefill at {}", depth),
          [&](Runner& runner, StepProfile* profile) { return prefill(runner, depth, s_.prompt, true, profile); }));
    }
    if (s_.generate > 0) {
      for (Variant& v : variants_) {
        step(*v.runner, s_.batch, depth, 1, false, true, nullptr);
        PhaseReport& phase = v.report.depths.front().decode.emplace(
            PhaseReport{.tokens = s_.generate * s_.batch, .sequences = s_.batch});
        for (int64_t i = 0; i < s_.generate; ++i) phase.work += work(v, {s_.batch, depth + i, 1, s_.batch});
      }
      FATHOM_RETURN_IF_ERROR(
          repeat(&DepthReport::decode, fmt::format("decode at {}", depth), [&](Runner& runner, StepProfile* profile) {
            for (int64_t i = 0; i < s_.generate; ++i) {
              if (cancel_) return false;
              step(runner, s_.batch, depth + i, 1, false, true, profile);
            }
            return true;
          }));
    }
    return {};
  }

  // body(runner, profile) is one repetition; false when cancelled. The machine's limits move: each repetition has those of its own
  // moment, from the probe before it and the one after.
  template <typename Body>
  Status repeat(std::optional<PhaseReport> DepthReport::*which, const std::string& label, Body&& body) {
    const auto phase_of = [&](Variant& v) -> PhaseReport& { return *(v.report.depths.front().*which); };
    int64_t tokens = 0;
    for (Variant& v : variants_) tokens += s_.repeat * phase_of(v).tokens;
    begin(label, tokens);
    std::vector<std::vector<StepProfile>> profiles(variants_.size());
    for (int i = 0; i < s_.repeat; ++i)
      for (size_t n = 0; n < variants_.size(); ++n) {
        StepProfile profile;
        const Clock::time_point start = Clock::now();
        if (!body(*variants_[n].runner, &profile)) return stop();
        const double seconds = seconds_since(start);
        const MachineLimits before = limits_;
        phase_of(variants_[n]).runs.push_back({seconds, between(before, probe())});
        profiles[n].push_back(profile);
      }
    for (size_t n = 0; n < variants_.size(); ++n) {
      PhaseReport& phase = phase_of(variants_[n]);
      std::vector<size_t> order(phase.runs.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::sort(order.begin(), order.end(),
                [&](size_t a, size_t b) { return phase.runs[a].seconds < phase.runs[b].seconds; });
      phase.profile = profiles[n][order[(order.size() - 1) / 2]];
    }
    return {};
  }

  Work work(const Variant& v, const StepShape& shape) const {
    return step_work(store_.config(), {v.settings.dense_attention, s_.latent_format}, shape).total();
  }

  const WeightStore& store_;
  BenchSettings s_;
  const BenchProgress& on_progress_;
  const std::atomic<bool>& cancel_;
  ThreadPool threads_;
  KvLayout layout_;
  int64_t rows_ = 0;
  std::optional<KvPool> pool_;
  std::vector<KvSequence> sequences_;
  std::vector<Variant> variants_;
  std::mt19937_64 random_{1};
  std::string task_;  // what is under way
  int64_t task_tokens_ = 0, done_ = 0;
  std::optional<MachineProbe> probe_;
  MachineLimits limits_;  // as last probed
};

}  // namespace

Result<std::vector<BenchReport>> run_bench(const WeightStore& store, const BenchSettings& settings,
                                           const BenchProgress& on_progress, const std::atomic<bool>& cancel) {
  return Bench(store, settings, on_progress, cancel).run();
}

}  // namespace fathom
