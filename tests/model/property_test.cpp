// What must hold for any weights: sparse attention over everything is dense attention, absorbed attention is attention,
// and a sequence's rows are the same bits alone, among others, in one piece and in many.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "cpu/backend.h"
#include "cpu/reference_backend.h"
#include "model/mla.h"
#include "model/weights.h"
#include "support/compare.h"
#include "support/isa.h"
#include "support/kv_memory.h"
#include "support/random.h"
#include "support/step_driver.h"
#include "support/tiny_model.h"

namespace fathom {
namespace {

constexpr int64_t kTokens = 75;  // over one block of the cache, and far over top-k

std::vector<Isa> all_isas() {
  auto isas = supported_kernel_isas();
  isas.push_back(Isa::kReference);
  return isas;
}

StepDriver::Output run_whole(const ModelConfig& config, const WeightStore& store, Isa isa, int threads = 1,
                             LatentFormat format = LatentFormat::kBf16, Numerics numerics = Numerics::kW8A16) {
  const auto tokens = random_tokens(config, kTokens);
  StepDriver driver(store, {isa, numerics}, format, threads, 1, kTokens);
  return driver.forward({{0, 0, tokens}});
}

// The same checkpoint, its indexer taken away.
TEST(DsaProperty, SelectingEverythingIsDenseAttention) {
  for (bool mtp : {false, true}) {
    ModelConfig sparse = tiny_config();
    sparse.index_topk = 80;
    sparse.num_nextn_predict_layers = mtp ? 1 : 0;
    CheckpointBuilder builder(sparse);
    const TinyModel with(builder);
    std::erase_if(builder.tensors, [](const BuiltTensor& t) { return t.name.find(".indexer.") != std::string::npos; });
    builder.config.model_type = "deepseek_v3";
    builder.config.index_n_heads = builder.config.index_head_dim = builder.config.index_topk = 0;
    const TinyModel without(builder);
    for (Isa isa : all_isas()) {
      const auto a = run_whole(sparse, with.store(), isa), b = run_whole(sparse, without.store(), isa);
      EXPECT_TRUE(same_bits(a.logits, b.logits, sparse.vocab_size)) << isa_name(isa);
    }
  }
}

// One key fewer than there are tokens: then the last rows must differ, and only those.
TEST(DsaProperty, TheSelectionBeginsToMatterWhereItMust) {
  ModelConfig all = tiny_config(), fewer = tiny_config();
  all.index_topk = 80;
  fewer.index_topk = 60;
  const TinyModel a(all), b(fewer);
  for (Isa isa : all_isas()) {
    const auto x = run_whole(all, a.store(), isa), y = run_whole(fewer, b.store(), isa);
    const size_t same = static_cast<size_t>(60 * all.vocab_size);
    EXPECT_TRUE(same_bits(std::span(x.logits).first(same), std::span(y.logits).first(same))) << isa_name(isa);
    EXPECT_FALSE(same_bits(std::span(x.logits).subspan(same), std::span(y.logits).subspan(same))) << isa_name(isa);
  }
}

// MLA as the V2 report writes it before absorbing: keys and values of every head are made from every latent, and
// attended to with a causal mask. Doubles; weights and equations as they stand in the checkpoint.
class NaiveMla {
 public:
  NaiveMla(const MlaWeights& weights, std::vector<float> inv_freq, double eps)
      : w(weights), freq(std::move(inv_freq)), eps_(eps) {}

  std::vector<float> run(const std::vector<float>& h, int64_t tokens) const {
    const auto c_q = norm(linear(to_double(h), tokens, w.q_a), tokens, w.q_a_norm);
    auto q = linear(c_q, tokens, w.q_b);
    const auto kv = linear(to_double(h), tokens, w.kv_a);
    const int64_t qk = w.nope_dim + w.rope_dim, width = w.rank + w.rope_dim;
    std::vector<double> latent, key;
    for (int64_t t = 0; t < tokens; ++t) {
      latent.insert(latent.end(), kv.begin() + t * width, kv.begin() + t * width + w.rank);
      key.insert(key.end(), kv.begin() + t * width + w.rank, kv.begin() + (t + 1) * width);
      rotate(key.data() + t * w.rope_dim, t);
      for (int64_t head = 0; head < w.heads; ++head) rotate(q.data() + (t * w.heads + head) * qk + w.nope_dim, t);
    }
    const auto expanded = linear(norm(latent, tokens, w.kv_a_norm), tokens, w.kv_b);  // (T, H, Dn + Dv)

    std::vector<double> o(static_cast<size_t>(tokens * w.heads * w.v_dim));
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t head = 0; head < w.heads; ++head) {
        std::vector<double> p;
        for (int64_t s = 0; s <= t; ++s) {
          double dot = 0;
          for (int64_t d = 0; d < w.nope_dim; ++d)
            dot += q[static_cast<size_t>((t * w.heads + head) * qk + d)] *
                   expanded[static_cast<size_t>((s * w.heads + head) * (w.nope_dim + w.v_dim) + d)];
          for (int64_t d = 0; d < w.rope_dim; ++d)
            dot += q[static_cast<size_t>((t * w.heads + head) * qk + w.nope_dim + d)] *
                   key[static_cast<size_t>(s * w.rope_dim + d)];
          p.push_back(std::exp(dot * static_cast<double>(w.softmax_scale)));
        }
        const double total = std::accumulate(p.begin(), p.end(), 0.0);
        for (int64_t s = 0; s <= t; ++s)
          for (int64_t v = 0; v < w.v_dim; ++v)
            o[static_cast<size_t>((t * w.heads + head) * w.v_dim + v)] +=
                p[static_cast<size_t>(s)] / total *
                expanded[static_cast<size_t>((s * w.heads + head) * (w.nope_dim + w.v_dim) + w.nope_dim + v)];
      }
    const auto u = linear(o, tokens, w.o);
    return {u.begin(), u.end()};
  }

 private:
  static std::vector<double> to_double(const std::vector<float>& x) { return {x.begin(), x.end()}; }
  static std::vector<double> linear(const std::vector<double>& x, int64_t tokens, const MatrixView& m) {
    std::vector<double> y;
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t n = 0; n < m.rows; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < m.cols; ++k) sum += x[static_cast<size_t>(t * m.cols + k)] * m.at(n, k);
        y.push_back(sum);
      }
    return y;
  }
  std::vector<double> norm(std::vector<double> x, int64_t tokens, std::span<const float> gain) const {
    const size_t d = x.size() / static_cast<size_t>(tokens);
    for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) {
      double sum = 0;
      for (size_t i = 0; i < d; ++i) sum += x[t * d + i] * x[t * d + i];
      const double scale = 1 / std::sqrt(sum / static_cast<double>(d) + eps_);
      for (size_t i = 0; i < d; ++i) x[t * d + i] *= scale * gain[i];
    }
    return x;
  }
  void rotate(double* x, int64_t position) const {
    for (size_t i = 0; i < freq.size(); ++i) {
      const double angle = static_cast<float>(position) * freq[i], a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * std::cos(angle) - b * std::sin(angle);
      x[2 * i + 1] = a * std::sin(angle) + b * std::cos(angle);
    }
  }
  const MlaWeights& w;
  std::vector<float> freq;
  double eps_;
};

TEST(MlaProperty, AbsorbedIsTheNaiveForm) {
  ModelConfig config = tiny_variants()[2].config;  // dense
  const TinyModel model(config);
  const ModelWeights weights = bind_weights(model.store());
  const YarnConfig yarn = *config.rope_scaling;
  const auto inv_freq = yarn_inv_freq({config.qk_rope_head_dim, config.rope_theta, yarn.factor,
                                       yarn.original_max_position_embeddings, yarn.beta_fast, yarn.beta_slow});
  TestRandom random(1);
  auto h = random.normals(kTokens * config.hidden_size);
  const MlaWeights& mla_weights = weights.layers[1].attention;
  const auto expected = NaiveMla(mla_weights, inv_freq, config.rms_norm_eps).run(h, kTokens);

  const std::vector<int32_t> tokens(kTokens, 0);
  const auto check = [&](auto& backend, LatentFormat format, double tolerance, std::string_view name) {
    const KvMemory kv(kv_layout(config, format), config.total_layers(), kTokens);
    const Slice slice{0, kTokens, kv.blocks()};
    Step step;
    step.tokens = tokens;
    step.slices = {&slice, 1};
    step.kv = &kv.cache;
    backend.begin_step(step);
    const Tensor input = Tensor::matrix(h.data(), kTokens, config.hidden_size);
    append_keys(backend, mla_weights, 1, input);
    const Tensor u = mla(backend, mla_weights, 1, input);
    EXPECT_TRUE(close_rows(contents(u), expected, kTokens, config.hidden_size, {.relative = tolerance})) << name;
  };
  cpu::BackendSettings settings;
  settings.rope_inv_freq = inv_freq;
  settings.rms_norm_eps = static_cast<float>(config.rms_norm_eps);
  cpu::ReferenceBackend reference(settings);
  check(reference, LatentFormat::kF32, 5e-6, "reference");  // float32 between the operations
  for (Isa isa : supported_kernel_isas()) {
    ThreadPool pool(2);
    settings.isa = isa;
    cpu::Backend backend(settings, pool);
    check(backend, LatentFormat::kBf16, 0.02, isa_name(isa));  // five products with inputs rounded to BF16
  }
}

class SequenceProperty : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { FATHOM_SKIP_UNLESS_SUPPORTED(GetParam()); }
};

// Three sequences that enter, run and end at different times, in steps together; each must have the bits that it has
// alone. MTP rows as well, of which some leave but their keys, as those of prompts do.
TEST_P(SequenceProperty, NeighboursInAStepDoNotMatter) {
  const std::vector<TinyVariant> variants = tiny_variants();
  for (const TinyVariant& variant : variants) {
    const TinyModel model(variant.config);
    const int64_t vocab = variant.config.vocab_size, hidden = variant.config.hidden_size;
    const bool mtp = variant.config.num_nextn_predict_layers > 0;
    std::vector<std::vector<int32_t>> tokens;
    for (uint64_t s = 0; s < 3; ++s)
      tokens.push_back(random_tokens(variant.config, 40 + 17 * static_cast<int64_t>(s), s));
    for (LatentFormat format : {LatentFormat::kBf16, LatentFormat::kFp8}) {
      const RunnerSettings settings{GetParam(), Numerics::kW8A16};
      std::vector<StepDriver::Output> alone, alone_mtp;
      for (const auto& t : tokens) {
        StepDriver driver(model.store(), settings, format, 1, 1, 80);
        alone.push_back(driver.forward({{0, 0, t}}));
        const std::vector<float> h(alone.back().hidden.begin(), alone.back().hidden.end() - hidden);
        alone_mtp.push_back(mtp ? driver.draft({{0, 0, std::span(t).subspan(1)}}, h) : StepDriver::Output{});
      }
      // Threads where steps are few rows too, but not everywhere: a machine with fewer cores takes long over it.
      const int threads = &variant == &variants.front() && format == LatentFormat::kFp8 ? 3 : 1;
      StepDriver together(model.store(), settings, format, threads, 3, 80);
      std::vector<size_t> done(3, 0);
      // Tokens of each sequence in each step: prompts and decoding mixed.
      for (const std::vector<size_t>& counts :
           std::vector<std::vector<size_t>>{{20, 0, 1}, {1, 30, 0}, {1, 1, 33}, {17, 25, 1}, {1, 1, 1}, {0, 0, 38}}) {
        std::vector<StepDriver::Piece> pieces;
        for (size_t s = 0; s < 3; ++s)
          if (counts[s] > 0)
            pieces.push_back({static_cast<int64_t>(s), static_cast<int64_t>(done[s]),
                              std::span(tokens[s]).subspan(done[s], counts[s])});
        std::rotate(pieces.begin(), pieces.begin() + 1, pieces.end());  // not always in the same order
        const auto out = together.forward(pieces);
        size_t row = 0;
        std::vector<StepDriver::Piece> drafts;
        std::vector<float> draft_hidden;
        for (const auto& piece : pieces) {
          const size_t s = static_cast<size_t>(piece.sequence), count = piece.tokens.size();
          const auto v = static_cast<size_t>(vocab), h = static_cast<size_t>(hidden);
          ASSERT_TRUE(same_bits(std::span(out.logits).subspan(row * v, count * v),
                                std::span(alone[s].logits).subspan(done[s] * v, count * v), vocab))
              << variant.name << " sequence " << s << " from token " << done[s];
          // MTP for all rows that have a next token.
          const size_t drafted = std::min(count, tokens[s].size() - 1 - done[s]);
          if (mtp && drafted > 0) {
            drafts.push_back({piece.sequence, piece.start, std::span(tokens[s]).subspan(done[s] + 1, drafted)});
            draft_hidden.insert(draft_hidden.end(), out.hidden.begin() + static_cast<std::ptrdiff_t>(row * h),
                                out.hidden.begin() + static_cast<std::ptrdiff_t>((row + drafted) * h));
          }
          row += count;
        }
        if (!drafts.empty()) {
          std::vector<int32_t> wanted;
          for (int32_t i = 0; i < static_cast<int32_t>(draft_hidden.size() / static_cast<size_t>(hidden)); ++i)
            if (i % 4 != 1) wanted.push_back(i);
          const auto draft = together.draft(drafts, draft_hidden, wanted);
          size_t first = 0, at = 0;
          const auto v = static_cast<size_t>(vocab);
          ASSERT_EQ(draft.logits.size(), wanted.size() * v);
          for (const auto& piece : drafts) {
            const size_t s = static_cast<size_t>(piece.sequence), count = piece.tokens.size();
            for (; at < wanted.size() && static_cast<size_t>(wanted[at]) < first + count; ++at) {
              const size_t token = done[s] + static_cast<size_t>(wanted[at]) - first;
              ASSERT_TRUE(same_bits(std::span(draft.logits).subspan(at * v, v),
                                    std::span(alone_mtp[s].logits).subspan(token * v, v), vocab))
                  << variant.name << " MTP of sequence " << s << ", token " << token;
            }
            first += count;
          }
        }
        for (size_t s = 0; s < 3; ++s) done[s] += counts[s];
      }
      for (size_t s = 0; s < 3; ++s) ASSERT_EQ(done[s], tokens[s].size()) << "the steps above cover every token";
    }
  }
}

TEST_P(SequenceProperty, AnyThreadsAndAnyCut) {
  for (const TinyVariant& variant : tiny_variants()) {
    const TinyModel model(variant.config);
    const auto tokens = random_tokens(variant.config, kTokens);
    for (Numerics numerics : {Numerics::kW8A16, Numerics::kW8A8}) {
      const auto whole = run_whole(variant.config, model.store(), GetParam(), 1, LatentFormat::kBf16, numerics);
      for (int threads : {2, 3}) {
        if (numerics == Numerics::kW8A8 && threads == 2) continue;  // one is enough here
        EXPECT_TRUE(same_bits(
            run_whole(variant.config, model.store(), GetParam(), threads, LatentFormat::kBf16, numerics).logits,
            whole.logits))
            << variant.name << " on " << threads << " threads";
      }
      StepDriver driver(model.store(), {GetParam(), numerics}, LatentFormat::kBf16, 1, 1, kTokens);
      std::vector<float> logits;
      size_t done = 0;
      for (size_t count : {size_t{1}, size_t{7}, size_t{56}, size_t{1}, size_t{10}}) {  // across a block's border
        const auto out = driver.forward({{0, static_cast<int64_t>(done), std::span(tokens).subspan(done, count)}});
        logits.insert(logits.end(), out.logits.begin(), out.logits.end());
        done += count;
      }
      ASSERT_EQ(done, tokens.size());
      EXPECT_TRUE(same_bits(logits, whole.logits, variant.config.vocab_size)) << variant.name;
    }
  }
}

// What a block held before must not matter: nothing behind the rows of the sequence is ever read.
TEST_P(SequenceProperty, StaleCacheRowsAreNeverSeen) {
  for (const TinyVariant& variant : tiny_variants()) {
    const TinyModel model(variant.config);
    const auto tokens = random_tokens(variant.config, kTokens), other = random_tokens(variant.config, kTokens, 99);
    StepDriver driver(model.store(), {GetParam(), Numerics::kW8A16}, LatentFormat::kFp8, 1, 1, kTokens);
    driver.forward({{0, 0, other}});
    const auto reused = driver.forward({{0, 0, std::span(tokens).first(30)}});
    StepDriver fresh(model.store(), {GetParam(), Numerics::kW8A16}, LatentFormat::kFp8, 1, 1, kTokens);
    EXPECT_TRUE(same_bits(reused.logits, fresh.forward({{0, 0, std::span(tokens).first(30)}}).logits)) << variant.name;
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, SequenceProperty, kernel_isas(), isa_test_name);

// A later token changes no earlier row, an earlier one changes all later rows.
TEST(CausalProperty, RowsSeeWhatIsBeforeThem) {
  for (const TinyVariant& variant : tiny_variants()) {
    const TinyModel model(variant.config);
    auto tokens = random_tokens(variant.config, 30);
    for (Isa isa : all_isas()) {
      const auto run = [&] {
        StepDriver driver(model.store(), {isa, Numerics::kW8A16}, LatentFormat::kBf16, 1, 1, 30);
        return driver.forward({{0, 0, tokens}}).logits;
      };
      const auto before = run();
      const int32_t old = std::exchange(tokens[12], (tokens[12] + 1) % static_cast<int32_t>(variant.config.vocab_size));
      const auto after = run();
      tokens[12] = old;
      const size_t cut = static_cast<size_t>(12 * variant.config.vocab_size);
      EXPECT_TRUE(same_bits(std::span(after).first(cut), std::span(before).first(cut))) << variant.name;
      const size_t v = static_cast<size_t>(variant.config.vocab_size);
      for (size_t t = 12; t < 16; ++t)  // top-k is 16: these see every token before them
        EXPECT_FALSE(same_bits(std::span(after).subspan(t * v, v), std::span(before).subspan(t * v, v))) << t;
    }
  }
}

}  // namespace
}  // namespace fathom
