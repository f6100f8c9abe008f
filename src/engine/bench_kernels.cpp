#include "engine/bench_kernels.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <deque>
#include <iterator>
#include <numeric>
#include <random>
#include <regex>
#include <utility>

#include "base/clock.h"
#include "base/memory.h"
#include "base/quote.h"
#include "base/thread_pool.h"
#include "cpu/backend.h"
#include "cpu/top_k.h"
#include "engine/work.h"

namespace fathom {

namespace {

// V3.2-Exp.
constexpr int64_t kHidden = 7168, kVocab = 129280, kQueryRank = 1536, kHeads = 128, kRank = 512, kNope = 128,
                  kRope = 64, kValue = 128, kIndexHeads = 64, kIndexDim = 128, kTopK = 2048, kInner = 18432,
                  kExperts = 256, kExpertInner = 2048, kChosen = 8;
constexpr int64_t kContext = 131072, kCacheLayers = 4;
constexpr size_t kWeightBytes = size_t{1} << 30;

double mlp_elements(int64_t inner) { return 3 * real(kHidden) * real(inner); }

// Repeats the first `period` bytes over the whole.
void tile(std::byte* data, size_t period, size_t size) {
  for (size_t done = period; done < size; done += period) std::memcpy(data + done, data, std::min(period, size - done));
}

class KernelBench {
 public:
  KernelBench(const KernelBenchSettings& settings, const std::regex& filter,
              const std::function<void(std::string_view)>& on_kernel, const std::atomic<bool>& cancel)
      : settings_(settings),
        filter_(filter),
        on_kernel_(on_kernel),
        cancel_(cancel),
        threads_(settings.threads),
        probe_(threads_, settings.isa),
        backend_(backend_settings(settings.isa), threads_),
        scales_(1 << 15, 1.0f / 128) {}

  KernelReport run() {
    KernelReport report;
    report.isa = isa_name(settings_.isa);
    report.threads = threads_.threads();
    report.machine = describe_machine();
    report.limits_before = probe_.limits();
    projections();
    latent_products();
    indexer();
    attention();
    prompt_forms();
    feed_forward();
    small();
    report.limits_after = probe_.limits();
    report.kernels = std::move(results_);
    return report;
  }

 private:
  static cpu::BackendSettings backend_settings(Isa isa) {
    cpu::BackendSettings s;
    s.isa = isa;
    s.rope_inv_freq.resize(kRope / 2);
    for (size_t i = 0; i < s.rope_inv_freq.size(); ++i)
      s.rope_inv_freq[i] = std::pow(10000.0f, -static_cast<float>(2 * i) / static_cast<float>(kRope));
    s.index_topk = kTopK;
    s.unabsorbed_until = kContext;  // which form is measured is up to the slice
    return s;
  }

  bool wanted(const std::string& name) const { return !cancel_ && std::regex_search(name, filter_); }

  // body(i) is the i-th call. Calls are counted so that one measurement takes some 20 ms.
  template <typename Body>
  void measure(const std::string& name, double flops, double bytes, Body&& body) {
    on_kernel_(name);
    int64_t call = 0;
    const auto seconds_of = [&](int64_t calls) {
      const auto start = std::chrono::steady_clock::now();
      for (int64_t i = 0; i < calls; ++i) {
        const ArenaScope scope = backend_.scope();
        body(call++);
      }
      return seconds_since(start) / real(calls);
    };
    seconds_of(1);  // scratch grows, pages are taken
    const int64_t calls = std::clamp<int64_t>(static_cast<int64_t>(0.02 / std::max(seconds_of(1), 1e-7)), 1, 10'000);
    std::vector<double> seconds;
    for (int i = 0; i < settings_.repeat && !cancel_; ++i) seconds.push_back(seconds_of(calls));
    if (!seconds.empty()) results_.push_back({name, Spread::of(std::move(seconds)), flops, bytes});
  }

  static std::string name(std::string_view operation, int64_t rows) {
    return fmt::format("{}, {} row{}", operation, rows, rows == 1 ? "" : "s");
  }

  // Rows [start, start + count) of one sequence are what the backend works on until the next call.
  void begin(int64_t start, int64_t count, bool with_cache) {
    tokens_.assign(static_cast<size_t>(count), 0);
    if (with_cache) make_cache();
    slice_ = {start, count, blocks_.data()};
    step_ = {};
    step_.tokens = tokens_;
    step_.slices = {&slice_, 1};
    step_.kv = &cache_;
    backend_.begin_step(step_);
  }

  Tensor input(int64_t rows, int64_t cols) {
    inputs_.emplace_back(static_cast<size_t>(rows * cols) * sizeof(float));
    float* data = inputs_.back().as<float>();
    for (int64_t i = 0; i < rows * cols; ++i) data[i] = static_cast<float>(random_() % 2001) * 1e-3f - 1.0f;
    return Tensor::matrix(data, rows, cols);
  }

  // Appends `count` different numbers below `of`, rising.
  void choose(int64_t count, int64_t of, std::vector<int32_t>& out) {
    std::vector<int32_t> all(static_cast<size_t>(of));
    std::iota(all.begin(), all.end(), 0);
    std::sample(all.begin(), all.end(), std::back_inserter(out), count, random_);
  }

  // Bytes that are sound as FP8 codes and, in pairs, as BF16 numbers near one. No subnormal codes: of trained weights, scaled
  // to the format's range, a few in ten thousand are, and kernels may take a slower path for them.
  void fill_weights(Buffer& buffer) {
    const size_t period = std::min(buffer.size_bytes(), (size_t{4} << 20) - 64 * 7);
    auto* bytes = buffer.as<uint8_t>();
    for (size_t i = 0; i < period; i += 2) {
      const uint64_t r = random_();
      const uint8_t low = static_cast<uint8_t>(r), sign = static_cast<uint8_t>(r >> 8 & 0x80);
      bytes[i] = (low & 0x7f) == 0x7f ? 0x70 : (low & 0x78) == 0 ? low | 0x08 : low;  // no NaN
      bytes[i + 1] = static_cast<uint8_t>(0x3c | (r >> 16 & 3) | sign);
    }
    tile(buffer.data(), period, buffer.size_bytes());
  }

  // The i-th matrix of this shape: each lies elsewhere, round and round.
  MatrixView fp8(int64_t rows, int64_t cols, int64_t i) {
    if (weights_.size_bytes() == 0) weights_ = Buffer(kWeightBytes), fill_weights(weights_);
    const size_t size = static_cast<size_t>(rows * cols), places = kWeightBytes / ((size + 4095) / 4096 * 4096);
    const size_t offset = static_cast<size_t>(i) % places * ((size + 4095) / 4096 * 4096);
    return {DType::kF8E4M3,     rows, cols, weights_.data() + offset, scales_.data(),
            /*pow2_scale=*/true};
  }
  MatrixView bf16(int64_t rows, int64_t cols, int64_t i) {
    MatrixView view = fp8(rows, 2 * cols, i);
    return {DType::kBF16, rows, cols, view.data, nullptr};
  }
  MlpWeights expert(int64_t inner, int64_t i) {
    return {fp8(inner, kHidden, 3 * i), fp8(inner, kHidden, 3 * i + 1), fp8(kHidden, inner, 3 * i + 2)};
  }

  void make_cache() {
    if (!blocks_.empty()) return;
    cache_.layout = {kRank, kRope, kIndexDim, LatentFormat::kBf16};
    cache_.block_count = kContext / kBlockTokens;
    const auto count = static_cast<size_t>(kCacheLayers * cache_.block_count);
    latent_ = Buffer(count * static_cast<size_t>(cache_.latent_block_bytes()));
    index_ = Buffer(count * static_cast<size_t>(cache_.index_block_bytes()));
    cache_.latent = latent_.data();
    cache_.index = index_.data();
    fill_weights(latent_);
    fill_weights(index_);
    for (int64_t layer = 0; layer < kCacheLayers; ++layer)
      for (int64_t b = 0; b < cache_.block_count; ++b) {
        auto* scales = reinterpret_cast<float*>(cache_.index_block(layer, b) + kBlockTokens * kIndexDim);
        for (int64_t s = 0; s < kBlockTokens; ++s) scales[s] = 1.0f / 128;
      }
    for (int64_t b = 0; b < cache_.block_count; ++b) blocks_.push_back(static_cast<int32_t>(b));
  }

  void projections() {
    struct Shape {
      std::string_view what;
      int64_t out, in;
    };
    for (const Shape& w : {Shape{"linear 7168 to 1536 (q_a)", kQueryRank, kHidden},
                           Shape{"linear 16384 to 7168 (o)", kHidden, kHeads * kValue}})
      for (const int64_t rows : {1, 256, 1024}) {
        const std::string title = name(w.what, rows);
        if (!wanted(title)) continue;
        begin(0, rows, false);
        const Tensor x = input(rows, w.in);
        const double elements = real(w.out) * real(w.in);
        measure(title, 2 * elements * real(rows), elements,
                [&](int64_t i) { backend_.linear(x, fp8(w.out, w.in, i)); });
      }
    if (const std::string title = name("head 7168 to 129280", 1); wanted(title)) {
      begin(0, 1, false);
      const Tensor x = input(1, kHidden);
      Buffer weights(static_cast<size_t>(2 * kVocab * kHidden));
      fill_weights(weights);
      const double elements = real(kVocab) * real(kHidden);
      measure(title, 2 * elements, 2 * elements, [&](int64_t) {
        backend_.linear(x, {DType::kBF16, kVocab, kHidden, weights.data(), nullptr});
      });
    }
    for (const int64_t rows : {1, 256}) {
      const std::string title = name("linear_exact 7168 to 256 (gate)", rows);
      if (!wanted(title)) continue;
      begin(0, rows, false);
      const Tensor x = input(rows, kHidden);
      const double elements = real(kExperts) * real(kHidden);
      measure(title, 2 * elements * real(rows), 2 * elements,
              [&](int64_t i) { backend_.linear_exact(x, bf16(kExperts, kHidden, i)); });
    }
  }

  void latent_products() {
    const double elements = real(kHeads) * real(kNope) * real(kRank);
    for (const int64_t rows : {1, 256}) {
      if (const std::string title = name("absorb", rows); wanted(title)) {
        begin(0, rows, false);
        const Tensor q = input(rows, kHeads * kNope).split_heads(kHeads);
        measure(title, 2 * elements * real(rows), elements,
                [&](int64_t i) { backend_.absorb(q, fp8(kHeads * (kNope + kValue), kRank, i), kValue); });
      }
      if (const std::string title = name("project_values", rows); wanted(title)) {
        begin(0, rows, false);
        const Tensor o = input(rows, kHeads * kRank).split_heads(kHeads);
        measure(title, 2 * elements * real(rows), elements, [&](int64_t i) {
          backend_.project_values(o, fp8(kHeads * (kNope + kValue), kRank, i), kNope, kValue);
        });
      }
    }
  }

  void indexer() {
    for (const int64_t rows : {1, 256}) {
      const std::string title = name("index_query", rows);
      if (!wanted(title)) continue;
      begin(0, rows, false);
      const Tensor q = input(rows, kIndexHeads * kIndexDim).split_heads(kIndexHeads), w = input(rows, kIndexHeads);
      measure(title, 0, 0, [&](int64_t) { backend_.index_query(q, w); });
    }
    for (const int64_t keys : {4096, 32768, 131072})
      for (const int64_t rows : {1, 64}) {
        const std::string title = name(fmt::format("index_select of {} keys", keys), rows);
        if (!wanted(title)) continue;
        begin(keys - rows, rows, true);
        const Tensor q = input(rows, kIndexHeads * kIndexDim).split_heads(kIndexHeads), w = input(rows, kIndexHeads);
        const IndexQuery query = backend_.index_query(q, w);
        const double pairs = real(rows) * (real(keys) - real(rows - 1) / 2);
        measure(title, 2 * real(kIndexHeads * kIndexDim) * pairs, real(keys * cache_.layout.index_row_bytes()),
                [&](int64_t i) { backend_.index_select(i % kCacheLayers, query); });
      }
    if (const std::string title = "top_k 2048 of 131072, one thread"; wanted(title)) {
      begin(0, 1, false);
      const Tensor scores = input(1, kContext);
      std::vector<uint64_t> memory(static_cast<size_t>(cpu::TopK::capacity(kTopK))),
          scratch(static_cast<size_t>(cpu::TopK::scratch(kTopK)));
      measure(title, 0, 0, [&](int64_t) {
        cpu::TopK best(cpu::kernels_for(settings_.isa), memory.data(), scratch.data(), kTopK);
        for (int64_t s = 0; s < kContext; s += kBlockTokens) best.push(scores.data + s, kBlockTokens, s);
        best.finish();
      });
    }
  }

  void attention() {
    const auto attend = [&](std::string_view keys_text, int64_t rows, int64_t start, int64_t keys, bool chosen) {
      const std::string title = name(fmt::format("attend to {}", keys_text), rows);
      const std::string whole = name(fmt::format("attention over {}", keys_text), rows);
      if (!wanted(title) && !wanted(whole)) return;
      begin(start, rows, true);
      const Tensor q = input(rows, kHeads * kRank).split_heads(kHeads),
                   q_rope = input(rows, kHeads * kRope).split_heads(kHeads);
      std::vector<int32_t> index, count;
      for (int64_t t = 0; t < rows; ++t) {
        count.push_back(static_cast<int32_t>(chosen ? keys : start + t + 1));
        if (chosen) choose(keys, start, index);
      }
      const Selection selection{index.data(), count.data(), chosen ? keys : 0};
      double pairs = 0;
      for (const int32_t n : count) pairs += n;
      const double flops = 2 * real(kHeads) * real(2 * kRank + kRope) * pairs;
      const double bytes = std::min(pairs, real(start + rows)) * real(cache_.layout.latent_row_bytes());
      if (wanted(title))
        measure(title, flops, bytes,
                [&](int64_t i) { backend_.attend(i % kCacheLayers, q, q_rope, selection, 0.135f); });
      if (!wanted(whole)) return;  // with absorb and project_values
      const Tensor q_nope = input(rows, kHeads * kNope).split_heads(kHeads);
      const double elements = real(kHeads) * real(kNope + kValue) * real(kRank);
      measure(whole, flops + 2 * elements * real(rows), bytes + elements, [&](int64_t i) {
        const MatrixView kv_b = fp8(kHeads * (kNope + kValue), kRank, i);
        backend_.attention(i % kCacheLayers, q_nope, q_rope, kv_b, kValue, selection, 0.135f);
      });
    };
    for (const int64_t rows : {1, 64}) attend("2048 keys of 131072", rows, kContext - rows, kTopK, true);
    for (const int64_t rows : {1, 64}) attend("all of 4096 keys", rows, 4096 - rows, 4096, false);
    for (const int64_t rows : {1, 256}) {
      const std::string title = name("append_latent", rows), key_title = name("append_index_key", rows);
      if (wanted(title)) {
        begin(4096, rows, true);
        const Tensor latent = input(rows, kRank), rope = input(rows, kRope);
        measure(title, 0, 0, [&](int64_t i) { backend_.append_latent(i % kCacheLayers, latent, rope); });
      }
      if (wanted(key_title)) {
        begin(4096, rows, true);
        const Tensor key = input(rows, kIndexDim);
        measure(key_title, 0, 0, [&](int64_t i) { backend_.append_index_key(i % kCacheLayers, key); });
      }
    }
  }

  // The two forms of attention that a prompt's rows can take: where they cross, `unabsorbed_until` of the table belongs.
  void prompt_forms() {
    constexpr int64_t kRows = 512;
    for (const int64_t keys : {4096, 6144, 8192})
      for (const bool absorbed : {false, true}) {
        const std::string title =
            name(fmt::format("prompt, 2048 of {} keys, {}", keys, absorbed ? "absorbed" : "un-absorbed"), kRows);
        if (!wanted(title)) continue;
        begin(keys - kRows, kRows, true);
        slice_.prompt = !absorbed;
        const Tensor q_nope = input(kRows, kHeads * kNope).split_heads(kHeads),
                     q_rope = input(kRows, kHeads * kRope).split_heads(kHeads);
        std::vector<int32_t> index, count(static_cast<size_t>(kRows), static_cast<int32_t>(kTopK));
        for (int64_t t = 0; t < kRows; ++t) choose(kTopK, keys - kRows + t + 1, index);
        const Selection selection{index.data(), count.data(), kTopK};
        // Keys and values of all rows are made where one is un-absorbed; a query and a result of each row where it is absorbed.
        const double per_pair = absorbed ? real(2 * kRank + kRope) : real(kNope + kRope + kValue);
        const double pairs = real(kRows * kTopK);
        const double made = real(absorbed ? kRows : keys) * real(kRank) * real(kNope + kValue);
        measure(title, 2 * real(kHeads) * (per_pair * pairs + made), 0, [&](int64_t i) {
          const MatrixView kv_b = fp8(kHeads * (kNope + kValue), kRank, i);
          backend_.attention(i % kCacheLayers, q_nope, q_rope, kv_b, kValue, selection, 0.135f);
        });
      }
  }

  void feed_forward() {
    for (const int64_t rows : {1, 256})
      if (const std::string title = name("mlp 7168 by 18432", rows); wanted(title)) {
        begin(0, rows, false);
        const Tensor x = input(rows, kHidden);
        measure(title, 2 * mlp_elements(kInner) * real(rows), mlp_elements(kInner),
                [&](int64_t i) { backend_.mlp(x, expert(kInner, i)); });
      }
    for (const int64_t rows : {1, 8, 64, 256}) {
      const std::string title = name("experts, 8 of 256 and a shared one", rows);
      if (!wanted(title)) continue;
      begin(0, rows, false);
      const Tensor x = input(rows, kHidden);
      std::vector<MlpWeights> experts;
      for (int64_t e = 0; e < kExperts; ++e) experts.push_back(expert(kExpertInner, e));
      const MlpWeights shared = expert(kExpertInner, kExperts);
      std::vector<int32_t> chosen;
      std::vector<bool> used(kExperts);
      for (int64_t t = 0; t < rows; ++t) choose(kChosen, kExperts, chosen);
      for (const int32_t e : chosen) used[static_cast<size_t>(e)] = true;
      std::vector<float> weight(chosen.size(), 0.3f);
      const Routing routing{chosen.data(), weight.data(), kChosen};
      const double distinct = real(std::count(used.begin(), used.end(), true)) + 1;
      measure(title, 2 * mlp_elements(kExpertInner) * real(rows) * real(kChosen + 1),
              mlp_elements(kExpertInner) * distinct, [&](int64_t) { backend_.experts(x, &shared, experts, routing); });
    }
  }

  void small() {
    for (const int64_t rows : {1, 256}) {
      if (const std::string title = name("rms_norm of 7168", rows); wanted(title)) {
        begin(0, rows, false);
        const Tensor x = input(rows, kHidden);
        const std::vector<float> gain(kHidden, 1.0f);
        measure(title, 0, 0, [&](int64_t) { backend_.rms_norm(x, gain); });
      }
      if (const std::string title = name("rope of 128 heads", rows); wanted(title)) {
        begin(0, rows, false);
        const Tensor x = input(rows, kHeads * kRope).split_heads(kHeads);
        measure(title, 0, 0, [&](int64_t) { backend_.rope(x, RopePairs::kInterleaved); });
      }
    }
  }

  const KernelBenchSettings& settings_;
  const std::regex& filter_;
  const std::function<void(std::string_view)>& on_kernel_;
  const std::atomic<bool>& cancel_;
  ThreadPool threads_;
  MachineProbe probe_;
  cpu::Backend backend_;
  std::vector<float> scales_;
  std::deque<Buffer> inputs_;
  Buffer weights_, latent_, index_;
  KvCache cache_;
  std::vector<int32_t> blocks_, tokens_;
  Slice slice_;
  Step step_;
  std::mt19937_64 random_{1};
  std::vector<KernelResult> results_;
};

}  // namespace

Result<KernelReport> bench_kernels(const KernelBenchSettings& settings,
                                   const std::function<void(std::string_view name)>& on_kernel,
                                   const std::atomic<bool>& cancel) {
  if (settings.isa == Isa::kReference)
    return fail("FATHOM_ISA=reference has no kernels to measure: unset it, or choose portable");
  std::regex filter;
  try {
    filter = std::regex(settings.filter);
  } catch (const std::regex_error& e) {
    return fail("--filter {}: not a regular expression: {}", in_quotes(settings.filter), e.what());
  }
  KernelReport report = KernelBench(settings, filter, on_kernel, cancel).run();
  if (cancel) return fail("interrupted before all was measured: nothing is reported");
  if (report.kernels.empty())
    return fail("--filter {}: no operation has such a name; without --filter all of them are listed",
                in_quotes(settings.filter));
  return report;
}

}  // namespace fathom
