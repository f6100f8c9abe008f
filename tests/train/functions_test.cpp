// The fused operations against the plain ones, values and all gradients; both against finite differences.
#include "train/functions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "support/compare.h"

namespace fathom::train {
namespace {

// ---- inputs

Tensor normal(torch::IntArrayRef shape, uint64_t seed) {
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  return torch::randn(shape, generator);
}

Segments segments_of(std::vector<int64_t> lengths) {
  std::vector<int32_t> begin, position;
  for (int64_t length : lengths) {
    const auto first = static_cast<int32_t>(begin.size());
    for (int32_t i = 0; i < length; ++i) begin.push_back(first), position.push_back(i);
  }
  return {torch::tensor(begin, torch::kInt32), torch::tensor(position, torch::kInt32)};
}

// A random selection of at most k visible rows, always with the row itself.
Tensor random_selection(const Segments& segments, int64_t k, uint64_t seed) {
  const int64_t rows = segments.begin.size(0);
  Tensor selected = torch::full({rows, k}, -1, torch::kInt32);
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t begin = segments.begin[t].item<int32_t>(), before = t - begin, count = std::min(k - 1, before);
    const Tensor some = torch::randperm(before, generator, torch::kInt64).slice(0, 0, count);
    const Tensor row = std::get<0>(torch::sort(torch::cat({some, torch::tensor({before})}))) + begin;
    selected[t].slice(0, 0, count + 1).copy_(row);
  }
  return selected;
}

// ---- cases: inputs with gradients, and what is computed of them; the loss is Σ result · a fixed random tensor

struct Case {
  std::string name;
  std::vector<Tensor> inputs;
  std::function<Tensor(Functions&, const std::vector<Tensor>&)> run;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

// The result, then the gradient of each input.
std::vector<Tensor> results(const Case& c, Functions& functions, torch::ScalarType type = torch::kFloat32) {
  std::vector<Tensor> inputs;
  for (const Tensor& x : c.inputs) inputs.push_back(x.to(type).clone().requires_grad_());
  Tensor result = c.run(functions, inputs);
  std::vector<Tensor> all{result.detach()};
  (result * normal(result.sizes(), 99).to(type)).sum().backward();
  for (const Tensor& x : inputs) all.push_back(x.grad());
  return all;
}

double loss(const Case& c, Functions& functions, const std::vector<Tensor>& inputs) {
  const Tensor result = c.run(functions, inputs).detach().to(torch::kFloat64);
  return (result * normal(result.sizes(), 99).to(torch::kFloat64)).sum().item<double>();
}

Case linear_case(int64_t rows, int64_t k, int64_t n) {
  return {fmt::format("linear_{}x{}x{}", rows, k, n),
          {normal({rows, k}, 1), normal({n, k}, 2)},
          [](Functions& f, const std::vector<Tensor>& x) { return f.linear(x[0], x[1]); }};
}
Case rms_norm_case(std::vector<int64_t> shape) {
  return {fmt::format("rms_norm_{}d_{}", shape.size(), shape.back()),
          {normal(shape, 1), normal({shape.back()}, 2)},
          [](Functions& f, const std::vector<Tensor>& x) { return f.rms_norm(x[0], x[1], 1e-5); }};
}
Case mlp_case(int64_t rows, int64_t dim, int64_t hidden) {
  const double s = 1 / std::sqrt(static_cast<double>(dim));
  return {fmt::format("mlp_{}x{}x{}", rows, dim, hidden),
          {normal({rows, dim}, 1), normal({hidden, dim}, 2) * s, normal({hidden, dim}, 3) * s,
           normal({dim, hidden}, 4) * s},
          [](Functions& f, const std::vector<Tensor>& x) { return f.mlp(x[0], x[1], x[2], x[3]); }};
}
// Expert 1 gets no row, expert 0 most; a row may have the same expert twice.
Case experts_case(int64_t rows, int64_t dim, int64_t hidden, int64_t experts, int64_t per_row) {
  const double s = 1 / std::sqrt(static_cast<double>(dim));
  Tensor expert = (normal({rows, per_row}, 5).abs() * static_cast<double>(experts) / 2).to(torch::kInt32);
  expert = expert.clamp_max(experts - 1);
  expert = expert.masked_fill(expert == 1, 0);
  return {
      fmt::format("experts_{}x{}x{}_{}of{}", rows, dim, hidden, per_row, experts),
      {normal({rows, dim}, 1), normal({experts, hidden, dim}, 2) * s, normal({experts, hidden, dim}, 3) * s,
       normal({experts, dim, hidden}, 4) * s, normal({rows, per_row}, 6)},
      [expert](Functions& f, const std::vector<Tensor>& x) { return f.experts(x[0], x[1], x[2], x[3], expert, x[4]); }};
}

struct Heads {
  int64_t heads, groups, key_dim, value_dim;
};
std::string keys_name(const std::vector<int64_t>& lengths, int64_t selected) {
  return fmt::format("{}segments_{}", lengths.size(), selected ? fmt::format("top{}", selected) : "all");
}
Case attention_case(std::vector<int64_t> lengths, Heads h, int64_t select) {
  const Segments segments = segments_of(lengths);
  const Tensor selected = select ? random_selection(segments, select, 7) : Tensor();
  const int64_t rows = segments.begin.size(0);
  return {
      fmt::format("attention_{}x{}x{}x{}_{}", h.heads, h.groups, h.key_dim, h.value_dim, keys_name(lengths, select)),
      {normal({rows, h.heads, h.key_dim}, 1), normal({rows, h.groups, h.key_dim}, 2),
       normal({rows, h.groups, h.value_dim}, 3)},
      [=](Functions& f, const std::vector<Tensor>& x) {
        const double scale = 1 / std::sqrt(static_cast<double>(h.key_dim));
        return f.attention(x[0], x[1], x[2], scale, {&segments, selected}).out;
      }};
}
Case index_loss_case(std::vector<int64_t> lengths, Heads h, int64_t index_heads, int64_t index_dim, int64_t select) {
  const Segments segments = segments_of(lengths);
  const Tensor selected = select ? random_selection(segments, select, 7) : Tensor();
  const int64_t rows = segments.begin.size(0);
  const double scale = 1 / std::sqrt(static_cast<double>(h.key_dim));
  const Tensor q = normal({rows, h.heads, h.key_dim}, 1), k = normal({rows, h.groups, h.key_dim}, 2);
  const Tensor lse = make_plain_functions()->attention(q, k, k, scale, {&segments, selected}).lse;
  const Tensor row_weight = normal({rows}, 8).abs();
  return {
      fmt::format("index_loss_{}x{}_{}x{}_{}", h.heads, h.groups, index_heads, index_dim, keys_name(lengths, select)),
      {normal({rows, index_heads, index_dim}, 4), normal({rows, index_dim}, 5), normal({rows, index_heads}, 6) * 0.1},
      [=](Functions& f, const std::vector<Tensor>& x) {
        const auto as = [&](const Tensor& y) { return y.to(x[0].scalar_type()); };
        return f.index_loss(x[0], x[1], x[2], as(q), as(k), as(lse), scale, {&segments, selected}, 8, as(row_weight))
            .kl;
      }};
}
Case cross_entropy_case(int64_t rows, int64_t dim, int64_t vocabulary) {
  Tensor weight = normal({rows}, 3).abs();
  if (rows > 1) weight = weight.masked_fill(weight < 0.3, 0);
  const Tensor target = (normal({rows}, 4).abs() * 1000).to(torch::kInt64).remainder(vocabulary);
  return {fmt::format("cross_entropy_{}x{}x{}", rows, dim, vocabulary),
          {normal({rows, dim}, 1), normal({vocabulary, dim}, 2)},
          [=](Functions& f, const std::vector<Tensor>& x) {
            return f.cross_entropy(x[0], x[1], target, weight.to(x[0].scalar_type()));
          }};
}

// Odd sizes, sizes of one, and sizes beyond every block that work is cut into.
std::vector<Case> cases() {
  return {
      linear_case(1, 1, 1),
      linear_case(7, 5, 3),
      linear_case(97, 64, 64),
      linear_case(131, 96, 200),
      linear_case(300, 33, 65),
      linear_case(4100, 18, 24),
      linear_case(70, 300, 130),
      rms_norm_case({5, 7}),
      rms_norm_case({300, 64}),
      rms_norm_case({9, 3, 33}),
      mlp_case(5, 7, 3),
      mlp_case(1, 16, 16),
      mlp_case(101, 64, 130),
      mlp_case(97, 48, 300),
      experts_case(1, 8, 8, 4, 2),
      experts_case(151, 40, 24, 6, 2),
      experts_case(700, 64, 72, 4, 3),
      experts_case(4099, 16, 8, 3, 1),
      attention_case({1, 2}, {2, 2, 8, 8}, 0),
      attention_case({3, 70, 1, 129, 4}, {3, 3, 24, 17}, 0),
      attention_case({200}, {8, 8, 64, 32}, 0),
      attention_case({50, 90, 31}, {4, 4, 40, 16}, 9),
      attention_case({3, 70, 1, 129, 4}, {5, 1, 33, 20}, 0),
      attention_case({200}, {8, 1, 96, 64}, 0),
      attention_case({50, 90, 31}, {8, 1, 80, 64}, 9),
      attention_case({300}, {3, 1, 20, 70}, 40),
      attention_case({20, 9}, {100, 1, 8, 8}, 5),
      attention_case({30, 700, 400}, {9, 1, 33, 20}, 90),  // more tokens than wait at once, and than a range of keys
      index_loss_case({1, 1}, {2, 2, 8, 8}, 1, 4, 0),
      index_loss_case({3, 70, 1, 129}, {4, 4, 24, 8}, 4, 32, 0),
      index_loss_case({3, 70, 1, 129}, {5, 1, 40, 8}, 3, 17, 0),
      index_loss_case({50, 90, 31}, {4, 4, 24, 8}, 4, 32, 20),
      index_loss_case({200}, {8, 1, 96, 8}, 4, 64, 33),
      index_loss_case({30, 700, 400}, {5, 1, 24, 8}, 10, 17, 90),
      cross_entropy_case(1, 8, 5),
      cross_entropy_case(90, 33, 77),
      cross_entropy_case(700, 64, 200),
  };
}

// ---- comparison

// Off by `relative` of the row's largest, or of what is usual in the tensor: an element is a sum of terms of that size,
// and a row whose terms cancel has their error.
testing::AssertionResult near(const Tensor& actual, const Tensor& expected, double relative) {
  if (actual.sizes() != expected.sizes()) return testing::AssertionFailure() << "shapes differ";
  const int64_t cols = expected.dim() ? expected.size(-1) : 1;
  const Tensor a = actual.contiguous(), e = expected.to(torch::kFloat32).contiguous();
  const auto span = [](const Tensor& x) { return std::span(x.data_ptr<float>(), static_cast<size_t>(x.numel())); };
  const double usual = e.to(torch::kFloat64).square().mean().sqrt().item<double>();
  return close_rows(span(a), span(e), e.numel() / cols, cols, {.relative = relative, .absolute = relative * usual});
}

void compare(const Case& c, bool bf16, double relative, Isa best = Isa::kAmx) {
  const auto plain = make_plain_functions(), fused = make_fused_functions(2, bf16, best);
  // float64: what both would be without rounding
  const std::vector<Tensor> expected = results(c, *plain, torch::kFloat64), actual = results(c, *fused);
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(near(actual[i], expected[i], relative)) << c.name << (i ? ": gradient of input " : ": result ") << i;
}

class FusedTest : public testing::TestWithParam<Case> {};
std::string case_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }

// float32: sums of up to 4,100 terms, each step off by 2^-24; 3e-5 is a hundred times the typical walk of such errors
// and a hundredth of what one wrong term of a thousand would do.
TEST_P(FusedTest, Float32IsPlain) { compare(GetParam(), false, 3e-5); }

TEST_P(FusedTest, PortableIsPlain) { compare(GetParam(), false, 3e-5, Isa::kPortable); }
TEST_P(FusedTest, Avx2IsPlain) { compare(GetParam(), false, 3e-5, Isa::kAvx2); }

// BF16 operands are off by 2^-9 each at most; three products in a row, terms that cancel, the worst of a hundred
// thousand elements: 4 %. The inputs are BF16 already, so that no relu of the indexer sees the other side of its kink.
TEST_P(FusedTest, Bf16IsPlain) {
  Case c = GetParam();
  for (Tensor& x : c.inputs) x = x.to(torch::kBFloat16).to(torch::kFloat32);
  compare(c, true, 0.04);
}

TEST_P(FusedTest, ThreadsDoNotChangeABit) {
  for (bool bf16 : {false, true}) {
    const std::vector<Tensor> one = results(GetParam(), *make_fused_functions(1, bf16));
    for (int threads : {2, 5}) {
      const auto functions = make_fused_functions(threads, bf16);
      for (int repeat = 0; repeat < 2; ++repeat) {  // the second time on memory that was used before
        const std::vector<Tensor> many = results(GetParam(), *functions);
        for (size_t i = 0; i < one.size(); ++i)
          EXPECT_TRUE(torch::equal(one[i], many[i])) << threads << " threads, " << i;
      }
    }
  }
}

// Central differences along a random direction: (L(x + εv) − L(x − εv)) / 2ε against Σ gradient · v.
void check_differences(const Case& c, Functions& functions, torch::ScalarType type, double epsilon, double relative) {
  const std::vector<Tensor> gradients = results(c, functions, type);
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const Tensor direction = normal(c.inputs[i].sizes(), 50 + i);
    std::vector<Tensor> up, down;
    for (const Tensor& x : c.inputs) up.push_back(x.to(type)), down.push_back(x.to(type));
    up[i] = (c.inputs[i].to(torch::kFloat64) + epsilon * direction).to(type);
    down[i] = (c.inputs[i].to(torch::kFloat64) - epsilon * direction).to(type);
    const double difference = (loss(c, functions, up) - loss(c, functions, down)) / (2 * epsilon);
    const Tensor along = gradients[i + 1].to(torch::kFloat64) * direction;
    // Terms of both signs cancel: the error is measured by their size.
    EXPECT_NEAR(difference, along.sum().item<double>(), relative * along.square().sum().sqrt().item<double>() + 1e-12)
        << c.name << ": input " << i;
  }
}

TEST_P(FusedTest, PlainGradientsAreDifferences) {
  check_differences(GetParam(), *make_plain_functions(), torch::kFloat64, 1e-6, 1e-5);
}

// ε: where the third derivative's error and that of rounding are about equal; both below 3 % of the terms' size.
TEST_P(FusedTest, FusedGradientsAreDifferences) {
  check_differences(GetParam(), *make_fused_functions(2, false), torch::kFloat32, 2e-3, 0.03);
}

INSTANTIATE_TEST_SUITE_P(Cases, FusedTest, testing::ValuesIn(cases()), case_name);

// ---- what has no gradient

TEST(FunctionsTest, LseIsPlain) {
  const Segments segments = segments_of({3, 70, 1, 129});
  for (int64_t groups : {1, 4})
    for (int64_t select : {0, 9}) {
      const Tensor selected = select ? random_selection(segments, select, 7) : Tensor();
      const Tensor q = normal({203, 4, 24}, 1), k = normal({203, groups, 24}, 2), v = normal({203, groups, 8}, 3);
      const KeySet keys{&segments, selected};
      EXPECT_TRUE(near(make_fused_functions(2, false)->attention(q, k, v, 0.3, keys).lse,
                       make_plain_functions()->attention(q, k, v, 0.3, keys).lse, 1e-5));
    }
}

// Small whole numbers: BF16 products are exact and scores tie everywhere, so that the rule for ties decides most
// places.
TEST(FunctionsTest, SelectionIsPlain) {
  for (const auto& lengths : {std::vector<int64_t>{1}, {5, 1, 200, 17, 90}, {700}}) {
    const Segments segments = segments_of(lengths);
    const int64_t rows = segments.begin.size(0);
    const Tensor q = normal({rows, 3, 20}, 1).round(), k = normal({rows, 20}, 2).round(),
                 w = normal({rows, 3}, 3).round();
    for (int64_t top_k : {1, 7, 64, 1000}) {
      const Tensor expected = make_plain_functions()->index_select(q, k, w, top_k, segments);
      EXPECT_EQ(expected.size(1), top_k);
      for (bool bf16 : {false, true})
        for (int threads : {1, 3})
          EXPECT_TRUE(
              torch::equal(make_fused_functions(threads, bf16)->index_select(q, k, w, top_k, segments), expected))
              << rows << " rows, top_k " << top_k;
    }
  }
}

// All scores equal: the oldest rows are kept, and all of a row that sees no more than top_k.
TEST(FunctionsTest, TiesGoToTheLowerRow) {
  const Segments segments = segments_of({2, 6});
  const Tensor q = torch::ones({8, 2, 4}), k = -torch::ones({8, 4}), w = torch::ones({8, 2});
  const Tensor expected = torch::tensor(
      {{0, -1, -1}, {0, 1, -1}, {2, -1, -1}, {2, 3, -1}, {2, 3, 4}, {2, 3, 4}, {2, 3, 4}, {2, 3, 4}}, torch::kInt32);
  EXPECT_TRUE(torch::equal(make_plain_functions()->index_select(q, k, w, 3, segments), expected));
  EXPECT_TRUE(torch::equal(make_fused_functions(2)->index_select(q, k, w, 3, segments), expected));
}

TEST(FunctionsTest, RecallIsPlain) {
  const Segments segments = segments_of({3, 70, 1, 129});
  // Whole numbers again, so that both find the same largest.
  const Tensor iq = normal({203, 3, 20}, 1).round(), ik = normal({203, 20}, 2).round(),
               iw = normal({203, 3}, 3).round() * 0.25;
  const Tensor q = normal({203, 4, 24}, 4), k = normal({203, 1, 24}, 5), weight = torch::ones({203});
  for (int64_t select : {0, 20}) {
    const KeySet keys{&segments, select ? random_selection(segments, select, 7) : Tensor()};
    const Tensor lse = make_plain_functions()->attention(q, k, k, 0.3, keys).lse;
    for (int64_t top_k : {1, 8, 20, 64}) {
      const Tensor expected =
          make_plain_functions()->index_loss(iq, ik, iw, q, k, lse, 0.3, keys, top_k, weight).recall;
      EXPECT_TRUE(near(make_fused_functions(2, false)
                           ->index_loss(iq, ik, iw, q, k, lse, 0.3, keys, top_k, weight)
                           .recall.unsqueeze(1),
                       expected.unsqueeze(1), 1e-5));
      EXPECT_EQ(expected[0].item<float>(), 1);  // a row that sees itself alone
    }
    EXPECT_LT(
        make_plain_functions()->index_loss(iq, ik, iw, q, k, lse, 0.3, keys, 1, weight).recall.min().item<float>(),
        0.5);
  }
}

// The selection of everything that is visible is attention over all.
TEST(FunctionsTest, SelectingAllIsAll) {
  const Segments segments = segments_of({40, 61});
  const Tensor iq = normal({101, 2, 8}, 1), ik = normal({101, 8}, 2), iw = normal({101, 2}, 3);
  const auto fused = make_fused_functions(2, false);
  const Tensor selected = fused->index_select(iq, ik, iw, 64, segments);
  const Tensor q = normal({101, 4, 24}, 4), k = normal({101, 1, 24}, 5);
  EXPECT_TRUE(near(fused->attention(q, k, k, 0.3, {&segments, selected}).out,
                   fused->attention(q, k, k, 0.3, {&segments, {}}).out, 1e-5));
}

// Frozen weights and detached inputs get no gradient, and the others the same as ever.
TEST(FunctionsTest, GradientsOnlyWhereAsked) {
  const auto fused = make_fused_functions(2);
  const Tensor x = normal({20, 16}, 1).requires_grad_(), w = normal({8, 16}, 2);
  fused->linear(x, w).sum().backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(w.grad().defined());
  EXPECT_FALSE(fused->linear(x.detach(), w).requires_grad());
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE(fused->cross_entropy(x, w, torch::zeros({20}, torch::kInt64), torch::ones({20})).requires_grad());
}

TEST(FunctionsTest, NoTargetNoLoss) {
  for (const auto& functions : {make_plain_functions(), make_fused_functions(2)}) {
    const Tensor h = normal({20, 16}, 1).requires_grad_(), head = normal({8, 16}, 2).requires_grad_();
    const Tensor value = functions->cross_entropy(h, head, torch::zeros({20}, torch::kInt64), torch::zeros({20}));
    value.backward();
    EXPECT_EQ(value.item<float>(), 0);
    EXPECT_TRUE(torch::equal(h.grad(), torch::zeros_like(h)));
    EXPECT_TRUE(torch::equal(head.grad(), torch::zeros_like(head)));
  }
}

// A NaN in any input reaches the result, if it does in the plain form: the trainer sees it in the loss.
TEST_P(FusedTest, NanIsNotLost) {
  for (bool bf16 : {false, true})
    for (size_t poisoned = 0; poisoned < GetParam().inputs.size(); ++poisoned) {
      Case c = GetParam();
      c.inputs[poisoned] = c.inputs[poisoned].clone();
      c.inputs[poisoned].view({-1})[c.inputs[poisoned].numel() / 2] = std::nan("");
      const std::vector<Tensor> expected = results(c, *make_plain_functions()),
                                actual = results(c, *make_fused_functions(2, bf16));
      // Not element by element: plain attention multiplies a masked NaN by 0, so that it reaches rows which do not see
      // it.
      EXPECT_TRUE(actual[0].isnan().any().item<bool>() || !expected[0].isnan().any().item<bool>())
          << "input " << poisoned;
    }
}

// Scores that are NaN select something valid: the loss, not a crash, reports them.
TEST(FunctionsTest, NanScoresSelectVisibleRows) {
  const Segments segments = segments_of({100});
  const Tensor q = torch::full({100, 2, 8}, std::nan("")), k = normal({100, 8}, 1), w = normal({100, 2}, 2);
  const auto fused = make_fused_functions(2);
  const Tensor selected = fused->index_select(q, k, w, 5, segments);
  const Tensor keys = normal({100, 1, 8}, 3);
  EXPECT_FALSE(fused->attention(keys, keys, keys, 1, {&segments, selected}).out.isnan().any().item<bool>());
}

}  // namespace
}  // namespace fathom::train
