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
// Passes over all groups together, so that a decode step's few rows still fill every thread:
//   1. by (group, 16 rows): pack the input
//   2. by (group, panel of intermediate columns): h = silu(gate x) · up x
//   3. by (group, 16 rows): pack h
//   4. by panel of output columns, each thread adding all groups to its own columns in their order
Tensor Backend::run_groups(Tensor x, std::span<const ExpertGroup> groups) {
  const int64_t rows = x.rows(), width = x.cols(), group_count = static_cast<int64_t>(groups.size());
  const Tensor y = make(rows, width);
  const ArenaScope temporaries(arena_);
  int64_t inner_rows = 0, inner_width = 0, most_rows = 0, out_row_bytes = 0;
  for (const ExpertGroup& g : groups) {
    FATHOM_CHECK(g.weights->gate.dtype == g.weights->up.dtype, "gate is {}, up is {}",
                 dtype_name(g.weights->gate.dtype), dtype_name(g.weights->up.dtype));
    inner_rows += g.count;
    inner_width = std::max(inner_width, g.weights->gate.rows);
    most_rows = std::max(most_rows, g.count);
    out_row_bytes += g.weights->down.row_bytes();
  }

  // Which group and rows the i-th stretch of 16 rows is.
  struct Stretch {
    int64_t group = 0, begin = 0, end = 0;
  };
  Stretch* stretches = arena_.allocate<Stretch>(static_cast<size_t>(inner_rows / kPackGroup + group_count));
  int64_t stretch_count = 0;
  for (int64_t i = 0; i < group_count; ++i)
    for (int64_t r = 0; r < groups[static_cast<size_t>(i)].count; r += kPackGroup)
      stretches[stretch_count++] = {i, r, std::min(r + kPackGroup, groups[static_cast<size_t>(i)].count)};

  PackedRows* inputs = arena_.allocate<PackedRows>(groups.size());
  PackedRows* inner_inputs = arena_.allocate<PackedRows>(groups.size());
  for (size_t i = 0; i < groups.size(); ++i) {
    const ExpertGroup& g = groups[i];
    const MatrixView &gate = g.weights->gate, &down = g.weights->down;
    inputs[i] = make_packed(kernels_.row_format(rounding_for(gate), gate.dtype), g.count, gate.cols, arena_);
    inner_inputs[i] = make_packed(kernels_.row_format(rounding_for(down), down.dtype), g.count, down.cols, arena_);
  }
  const Tensor h = make(inner_rows, inner_width);

  pool_.parallel_for(stretch_count, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Stretch s = stretches[i];
      const ExpertGroup& g = groups[static_cast<size_t>(s.group)];
      kernels_.pack(inputs[s.group], rounding_for(g.weights->gate), {x.data, x.stride[0], g.rows}, s.begin, s.end);
    }
  });

  const int64_t inner_task = rows_per_task(inner_width, groups[0].weights->gate.row_bytes(), most_rows),
                panels = (inner_width + inner_task - 1) / inner_task;
  // Where a task's weights begin.
  const auto next_gate = [&](int64_t task) -> const std::byte* {
    if (task == group_count * panels) return nullptr;
    return groups[static_cast<size_t>(task / panels)].weights->gate.row(task % panels * inner_task);
  };
  pool_.parallel_for(group_count * panels, 1, [&](int64_t begin, int64_t end, int worker) {
    Arena& scratch = worker_arenas_[static_cast<size_t>(worker)];
    for (int64_t task = begin; task < end; ++task) {
      const ExpertGroup& g = groups[static_cast<size_t>(task / panels)];
      const int64_t n = task % panels * inner_task, count = std::min(inner_task, g.weights->gate.rows - n);
      if (count <= 0) continue;
      const ArenaScope scope(scratch);
      float* gate = scratch.allocate<float>(static_cast<size_t>(g.count * count));
      float* up = scratch.allocate<float>(static_cast<size_t>(g.count * count));
      const std::byte* next = next_gate(task + 1);
      kernels_.gemm({inputs[task / panels], g.weights->gate, n, count, gate, count, g.weights->up.row(n)}, scratch);
      kernels_.gemm({inputs[task / panels], g.weights->up, n, count, up, count, next}, scratch);
      for (int64_t i = 0; i < g.count; ++i)
        kernels_.silu_product(gate + i * count, up + i * count, count, h.row(g.first + i) + n);
    }
  });

  pool_.parallel_for(stretch_count, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Stretch s = stretches[i];
      const ExpertGroup& g = groups[static_cast<size_t>(s.group)];
      kernels_.pack(inner_inputs[s.group], rounding_for(g.weights->down), {h.row(g.first), h.stride[0], nullptr},
                    s.begin, s.end);
    }
  });

  const int64_t out_task = rows_per_task(width, out_row_bytes, most_rows);
  pool_.parallel_for((width + out_task - 1) / out_task, 1, [&](int64_t begin, int64_t end, int worker) {
    Arena& scratch = worker_arenas_[static_cast<size_t>(worker)];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task * out_task, count = std::min(out_task, width - n);
      const ArenaScope scope(scratch);
      float* out = scratch.allocate<float>(static_cast<size_t>(most_rows * count));
      for (int64_t t = 0; t < rows; ++t) std::fill_n(y.row(t) + n, count, 0.0f);
      for (size_t i = 0; i < groups.size(); ++i) {
        const ExpertGroup& g = groups[i];
        const std::byte* next = i + 1 < groups.size() ? groups[i + 1].weights->down.row(n)
                                : n + count < width   ? groups[0].weights->down.row(n + count)
                                                      : nullptr;
        kernels_.gemm({inner_inputs[i], g.weights->down, n, count, out, count, next}, scratch);
        for (int64_t r = 0; r < g.count; ++r)
          kernels_.add_weighted(g.row_weight ? g.row_weight[r] : 1.0f, out + r * count, count,
                                y.row(g.rows ? g.rows[r] : r) + n);
      }
    }
  });
  return y;
}

}  // namespace fathom::cpu
