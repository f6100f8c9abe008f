// The feed-forward half of the CPU backend: routing, dense MLP and experts.
#include <algorithm>

#include "cpu/backend.h"

namespace fathom::cpu {

// One MLP and the rows of the step that go through it.
struct Backend::ExpertGroup {
  const MlpWeights* weights = nullptr;
  const int32_t* rows = nullptr;      // (count) rows of x; null: all
  const float* row_weight = nullptr;  // (count); null: 1
  int64_t count = 0;
  int64_t first = 0;  // where its rows begin in the intermediate activations
};

Tensor Backend::mlp(Tensor x, const MlpWeights& w) {
  const Timed time = timed(Operation::kMlp);
  const ExpertGroup all{&w, nullptr, nullptr, x.rows(), 0};
  return run_groups(x, {&all, 1});
}

Tensor Backend::experts(Tensor x, const MlpWeights* shared, std::span<const MlpWeights> experts,
                        const Routing& routing) {
  const Timed time = timed(Operation::kExperts);
  const int64_t rows = x.rows(), choices = rows * routing.top_k;
  ExpertGroup* groups = arena_.allocate<ExpertGroup>(experts.size() + 1);
  int32_t* group_rows = arena_.allocate<int32_t>(static_cast<size_t>(choices));
  float* group_weight = arena_.allocate<float>(static_cast<size_t>(choices));
  int64_t* next = arena_.allocate<int64_t>(experts.size() + 1);  // counting sort by expert

  std::fill_n(next, experts.size() + 1, 0);
  for (int64_t i = 0; i < choices; ++i) ++next[routing.expert[i] + 1];
  for (size_t e = 0; e < experts.size(); ++e) next[e + 1] += next[e];
  size_t group_count = 0;
  if (shared) groups[group_count++] = {shared, nullptr, nullptr, rows, 0};
  const int64_t shared_rows = shared ? rows : 0;
  for (size_t e = 0; e < experts.size(); ++e) {
    const int64_t first = next[e], count = next[e + 1] - first;
    if (count > 0)
      groups[group_count++] = {&experts[e], group_rows + first, group_weight + first, count, shared_rows + first};
  }
  for (int64_t i = 0; i < choices; ++i) {
    const int64_t slot = next[routing.expert[i]]++;
    group_rows[slot] = static_cast<int32_t>(i / routing.top_k);
    group_weight[slot] = routing.weight[i];
  }
  return run_groups(x, {groups, group_count});
}

// y[t] = Σ over groups, in their order, of weight · down(silu(gate x) · up x).
// Three passes over all groups together, so that a decode step's few rows still fill every thread:
//   1. by (group, panel of intermediate columns): h = silu(gate x) · up x
//   2. by row: round h for the next product
//   3. by panel of output columns, each thread adding all groups to its own columns in their order
Tensor Backend::run_groups(Tensor x, std::span<const ExpertGroup> groups) {
  const int64_t rows = x.rows(), width = x.cols();
  const Tensor y = make(rows, width);
  const ArenaScope temporaries(arena_);
  int64_t inner_rows = 0, inner_width = 0, most_rows = 0;
  for (const ExpertGroup& g : groups) {
    inner_rows += g.count;
    inner_width = std::max(inner_width, g.weights->gate.rows);
    most_rows = std::max(most_rows, g.count);
  }
  // Weights of one checkpoint may differ in dtype from group to group: pack the input once per rounding that occurs.
  const PackedRows packed_bf16 = pack(x, InputRounding::kBf16);
  const PackedRows packed_fp8 =
      settings_.fp8_input == InputRounding::kBf16 ? packed_bf16 : pack(x, settings_.fp8_input);
  const Tensor h = make(inner_rows, inner_width);

  const auto product = [&](const ExpertGroup& g, const MatrixView& w, const PackedRows& bf16, const PackedRows& fp8,
                           const float* rows_exact, const int32_t* row_index, int64_t n, int64_t count, float* out,
                           Arena& scratch) {
    if (w.dtype == DType::kF32)
      kernels_.gemm_exact(rows_exact, w.cols, g.count, w, n, count, out, kPanelRows);
    else
      kernels_.gemm({w.dtype == DType::kF8E4M3 ? fp8 : bf16, row_index, g.count, w, n, count, out, kPanelRows},
                    scratch);
  };
  const auto gathered = [&](const ExpertGroup& g, Arena& scratch) -> const float* {
    if (g.weights->gate.dtype != DType::kF32) return nullptr;
    float* out = scratch.allocate<float>(static_cast<size_t>(g.count * width));
    for (int64_t i = 0; i < g.count; ++i) std::copy_n(x.row(g.rows ? g.rows[i] : i), width, out + i * width);
    return out;
  };

  const int64_t panels = (inner_width + kPanelRows - 1) / kPanelRows;
  pool_.parallel_for(static_cast<int64_t>(groups.size()) * panels, 1, [&](int64_t begin, int64_t end, int worker) {
    Arena& scratch = worker_arenas_[static_cast<size_t>(worker)];
    for (int64_t task = begin; task < end; ++task) {
      const ExpertGroup& g = groups[static_cast<size_t>(task / panels)];
      const int64_t n = task % panels * kPanelRows, count = std::min(kPanelRows, g.weights->gate.rows - n);
      if (count <= 0) continue;
      const ArenaScope scope(scratch);
      float* gate = scratch.allocate<float>(static_cast<size_t>(g.count * kPanelRows));
      float* up = scratch.allocate<float>(static_cast<size_t>(g.count * kPanelRows));
      const float* rows_exact = gathered(g, scratch);
      product(g, g.weights->gate, packed_bf16, packed_fp8, rows_exact, g.rows, n, count, gate, scratch);
      product(g, g.weights->up, packed_bf16, packed_fp8, rows_exact, g.rows, n, count, up, scratch);
      for (int64_t i = 0; i < g.count; ++i)
        for (int64_t j = 0; j < count; ++j)
          h.row(g.first + i)[n + j] = silu(gate[i * kPanelRows + j]) * up[i * kPanelRows + j];
    }
  });

  const int64_t stride = PackedRows::stride_for(inner_width), scale_groups = stride / kFp8Group;
  const bool fp8_scaled = settings_.fp8_input != InputRounding::kBf16;
  BF16* h_packed = arena_.allocate<BF16>(static_cast<size_t>(inner_rows * stride));
  float* h_scale = fp8_scaled ? arena_.allocate<float>(static_cast<size_t>(inner_rows * scale_groups)) : nullptr;
  int32_t* group_of = arena_.allocate<int32_t>(static_cast<size_t>(inner_rows));
  for (size_t i = 0; i < groups.size(); ++i)
    std::fill_n(group_of + groups[i].first, groups[i].count, static_cast<int32_t>(i));
  pool_.parallel_for(inner_rows, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const MatrixView& down = groups[static_cast<size_t>(group_of[r])].weights->down;
      if (down.dtype == DType::kF32) continue;
      kernels_.pack_row(rounding_for(down), h.row(r), down.cols, h_packed + r * stride,
                        h_scale ? h_scale + r * scale_groups : nullptr);
    }
  });

  pool_.parallel_for((width + kPanelRows - 1) / kPanelRows, 1, [&](int64_t begin, int64_t end, int worker) {
    Arena& scratch = worker_arenas_[static_cast<size_t>(worker)];
    for (int64_t p = begin; p < end; ++p) {
      const int64_t n = p * kPanelRows, count = std::min(kPanelRows, width - n);
      const ArenaScope scope(scratch);
      float* out = scratch.allocate<float>(static_cast<size_t>(most_rows * kPanelRows));
      for (int64_t t = 0; t < rows; ++t) std::fill_n(y.row(t) + n, count, 0.0f);
      for (const ExpertGroup& g : groups) {
        const MatrixView& down = g.weights->down;
        if (down.dtype == DType::kF32) {
          kernels_.gemm_exact(h.row(g.first), h.cols(), g.count, down, n, count, out, kPanelRows);
        } else {
          const bool scaled = down.dtype == DType::kF8E4M3 && fp8_scaled;
          const PackedRows in{h_packed + g.first * stride, stride, scaled ? h_scale + g.first * scale_groups : nullptr};
          kernels_.gemm({in, nullptr, g.count, down, n, count, out, kPanelRows}, scratch);
        }
        for (int64_t i = 0; i < g.count; ++i) {
          float* row = y.row(g.rows ? g.rows[i] : i) + n;
          const float weight = g.row_weight ? g.row_weight[i] : 1.0f;
          for (int64_t j = 0; j < count; ++j) row[j] += weight * out[i * kPanelRows + j];
        }
      }
    }
  });
  return y;
}

}  // namespace fathom::cpu
