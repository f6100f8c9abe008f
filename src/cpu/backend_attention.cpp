// The attention half of the CPU backend: which form a row takes, and how its keys and heads are shared among threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "cpu/backend.h"

namespace fathom::cpu {

namespace {
// Heads that the kernels of attention take at once: a task's heads begin at a multiple of it.
constexpr int64_t kHeadGroup = 16;
}  // namespace

Tensor Backend::attention(int64_t layer, Tensor q_nope, Tensor q_rope, const MatrixView& kv_b, int64_t v_head_dim,
                          const Selection& selection, float scale) {
  // 64 rows of 128 heads are 16 MB, and enough for each weight that is expanded.
  constexpr int64_t kRowsAtOnce = 64;
  const int64_t rows = q_nope.rows(), heads = q_nope.dim[1], nope = q_nope.dim[2];
  const Tensor o = make(rows, heads * v_head_dim);
  const PromptShape shape{kv_b.cols, q_rope.dim[2], nope, v_head_dim};
  const bool has_prompt_form = kernels_.prompt && !settings_.absorbed_only && kernels_.prompt->fits(shape, kv_b);
  // While all keys are selected anyway, sparse attention is dense; and for a while after, making the keys and values of all for a
  // head takes less time than attending to latent rows does.
  int64_t prompt_until = std::numeric_limits<int64_t>::max();
  if (has_prompt_form && settings_.index_topk > 0)
    prompt_until = std::max(settings_.index_topk, settings_.unabsorbed_until >= 0 ? settings_.unabsorbed_until
                                                                                  : kernels_.prompt->unabsorbed_until);

  int64_t absorbed_from = 0;  // rows of the step from here on, up to t, wait for the absorbed form
  const auto absorbed = [&](int64_t end) {
    for (int64_t t = absorbed_from; t < end; t += kRowsAtOnce) {
      const ArenaScope temporaries(arena_);
      const int64_t count = std::min(kRowsAtOnce, end - t);
      const Tensor q_latent = absorb(q_nope.rows_at(t, count), kv_b, v_head_dim);
      const Tensor o_latent = attend(layer, q_latent, q_rope.rows_at(t, count), selection, scale, t);
      project_values_into(o_latent, kv_b, nope, o.rows_at(t, count));
    }
  };
  int64_t t = 0;
  for (const Slice& slice : step_->slices) {
    const int64_t count =
        has_prompt_form && slice.prompt ? std::clamp<int64_t>(prompt_until - slice.start, 0, slice.count) : 0;
    if (count > 0) {
      absorbed(t);
      attend_prompt(layer, q_nope.rows_at(t, count), q_rope.rows_at(t, count), kv_b, selection, t, scale,
                    o.rows_at(t, count));
      absorbed_from = t + count;
    }
    t += slice.count;
  }
  absorbed(rows);
  if (step_->trace) trace_attention(layer, q_nope, q_rope, kv_b, v_head_dim, selection, scale);
  return o;
}

// The sum of a softmax over some of its keys, relative to all: from the logarithms of both sums.
void Backend::trace_attention(int64_t layer, Tensor q_nope, Tensor q_rope, const MatrixView& kv_b, int64_t v_head_dim,
                              const Selection& selection, float scale) {
  const int64_t heads = q_nope.dim[1], rank = kv_b.cols;
  for (int64_t t = 0; t < q_nope.rows(); ++t) {
    if (!step_->trace->wants_attention_share(t)) continue;
    const ArenaScope temporaries(arena_);
    const Tensor q_latent = absorb(q_nope.rows_at(t, 1), kv_b, v_head_dim);
    const int64_t visible = position_[static_cast<size_t>(t)] + 1, count = selection.count[t];
    double* share = arena_.allocate<double>(static_cast<size_t>(heads));
    const int64_t groups = (heads + kHeadGroup - 1) / kHeadGroup;
    pool_.parallel_for(groups, 1, [&](int64_t begin, int64_t end, int worker) {
      Arena& scratch = worker_arenas_[static_cast<size_t>(worker)];
      for (int64_t h = begin * kHeadGroup; h < std::min(end * kHeadGroup, heads); h += kHeadGroup) {
        const ArenaScope scope(scratch);
        AttendArgs args;
        args.q_latent = q_latent.at(0, h);
        args.q_latent_stride = q_latent.stride[1];
        args.q_rope = q_rope.at(t, h);
        args.q_rope_stride = q_rope.stride[1];
        args.heads = std::min(kHeadGroup, heads - h);
        args.kv = rows_of(layer, t);
        args.scale = scale;
        args.out = scratch.allocate<float>(static_cast<size_t>(kHeadGroup * rank));
        args.out_stride = rank;
        float* of_all = scratch.allocate<float>(static_cast<size_t>(kHeadGroup));
        float* of_selected = scratch.allocate<float>(static_cast<size_t>(kHeadGroup));
        args.count = visible;
        args.log_sum = of_all;
        kernels_.attend(args, scratch);
        args.rows = count == visible ? nullptr : selection.index + t * selection.stride;
        args.count = count;
        args.log_sum = of_selected;
        kernels_.attend(args, scratch);
        for (int64_t g = 0; g < args.heads; ++g) share[h + g] = std::exp(double{of_selected[g]} - of_all[g]);
      }
    });
    step_->trace->attention_share(layer, t, std::accumulate(share, share + heads, 0.0) / static_cast<double>(heads));
  }
}

void Backend::attend_prompt(int64_t layer, Tensor q_nope, Tensor q_rope, const MatrixView& kv_b,
                            const Selection& selection, int64_t first_row, float scale, Tensor o) {
  const Timed time = timed(Operation::kAttend);
  const ArenaScope temporaries(arena_);
  const int64_t rows = q_nope.rows(), heads = q_nope.dim[1], value = o.cols() / heads;
  const PromptShape shape{kv_b.cols, q_rope.dim[2], q_nope.dim[2], value};
  const int64_t first_position = position_[static_cast<size_t>(first_row)], visible = first_position + rows;
  const KvRows kv = rows_of(layer, first_row);
  // The selection as bits, for rows that do not attend to all they see.
  const int64_t words = (visible + 63) / 64;
  const uint64_t** selected = arena_.allocate<const uint64_t*>(static_cast<size_t>(rows));
  uint64_t* bits = arena_.allocate<uint64_t>(static_cast<size_t>(rows * words));
  pool_.parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t = first_row + i;
      const bool all = selection.count[t] == first_position + i + 1;
      selected[i] = all ? nullptr : bits + i * words;
      if (all) continue;
      std::fill_n(bits + i * words, words, 0);
      // Four places of the list at a time: bits of one word wait for each other.
      const int32_t* list = selection.index + t * selection.stride;
      const int64_t count = selection.count[t], quarter = (count + 3) / 4;
      for (int64_t j = 0; j < quarter; ++j)
        for (int64_t place = j; place < count; place += quarter) {
          const uint32_t s = static_cast<uint32_t>(list[place]);
          bits[i * words + s / 64] |= uint64_t{1} << s % 64;
        }
    }
  });
  std::byte* keys = arena_.allocate<std::byte>(kernels_.prompt->key_bytes(shape));
  float* best = arena_.allocate<float>(static_cast<size_t>(heads * rows));
  float* total = arena_.allocate<float>(static_cast<size_t>(heads * rows));
  // A head's rows lie together here: in the step's tensors they are as far apart as all heads are wide, which caches bear badly.
  const size_t query_bytes = kernels_.prompt->query_bytes(shape);
  std::byte* queries = arena_.allocate<std::byte>(static_cast<size_t>(heads * rows) * query_bytes);
  float* by_head = arena_.allocate<float>(static_cast<size_t>(heads * rows * value));
  pool_.parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t h = 0; h < heads; ++h)
        kernels_.prompt->pack_query(shape, q_nope.at(i, h), q_rope.at(i, h),
                                    queries + static_cast<size_t>(h * rows + i) * query_bytes);
  });
  for (int64_t begin = 0; begin < visible; begin += kPromptKeys) {
    const int64_t end = std::min(visible, begin + kPromptKeys);
    pool_.parallel_for((end - begin + kPromptPiece - 1) / kPromptPiece, 1, [&](int64_t from, int64_t to, int) {
      for (int64_t piece = from; piece < to; ++piece)
        kernels_.prompt->pack_keys(kv, begin + piece * kPromptPiece, std::min(end, begin + (piece + 1) * kPromptPiece),
                                   keys);
    });
    pool_.parallel_for(heads, 1, [&](int64_t from, int64_t to, int worker) {
      for (int64_t h = from; h < to; ++h) {
        PromptArgs args;
        args.shape = shape;
        args.queries = queries + static_cast<size_t>(h * rows) * query_bytes;
        args.rows = rows;
        args.first_position = first_position;
        args.top_k = settings_.index_topk;
        args.selected = selected;
        args.keys = keys;
        args.key_begin = begin;
        args.key_count = end - begin;
        args.kv_b = kv_b;
        args.row_begin = h * (shape.nope + value);
        args.scale = scale;
        args.best = best + h * rows;
        args.total = total + h * rows;
        args.out = by_head + h * rows * value;
        args.out_stride = value;
        args.last = end == visible;
        kernels_.prompt->attend(args, worker_arenas_[static_cast<size_t>(worker)]);
      }
    });
  }
  pool_.parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t h = 0; h < heads; ++h)
        std::copy_n(by_head + (h * rows + i) * value, value, o.data + i * o.stride[0] + h * value);
  });
}

Tensor Backend::absorb(Tensor q_nope, const MatrixView& kv_b, int64_t v_head_dim) {
  const Timed time = timed(Operation::kAbsorb);
  const int64_t rows = q_nope.rows(), heads = q_nope.dim[1], nope = q_nope.dim[2], rank = kv_b.cols;
  const Tensor y = make(rows, heads * rank).split_heads(heads);
  pool_.parallel_for(heads, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t h = begin; h < end; ++h) {
      const int64_t row = h * (nope + v_head_dim);
      const std::byte* next = h + 1 < heads ? kv_b.row(row + nope + v_head_dim) : nullptr;
      kernels_.absorb({q_nope.at(0, h), q_nope.stride[0], rows, nope, kv_b, row, y.at(0, h), y.stride[0], next},
                      worker_arenas_[static_cast<size_t>(worker)]);
    }
  });
  return y;
}

// A row's keys are taken in parts, joined at the end by their shares of the whole sum. How many depends on the number of keys
// alone, so that a row has the same bits whether its parts are done by one thread or by many.
Backend::KeyParts Backend::key_parts(int64_t count) {
  constexpr int64_t kLeast = 512, kMost = 16;  // keys that pay for a task; parts, whose results wait in memory
  const int64_t parts = std::clamp<int64_t>(count / kLeast, 1, kMost);
  const int64_t size = (count + parts - 1) / parts;
  return {(count + size - 1) / size, size};
}

Tensor Backend::attend(int64_t layer, Tensor q_latent, Tensor q_rope, const Selection& selection, float scale,
                       int64_t first_row) {
  const Timed time = timed(Operation::kAttend);
  const ArenaScope temporaries(arena_);
  const int64_t rows = q_latent.rows(), heads = q_latent.dim[1], rank = q_latent.dim[2];
  int64_t most_parts = 1;
  for (int64_t i = 0; i < rows; ++i) most_parts = std::max(most_parts, key_parts(selection.count[first_row + i]).count);
  // With fewer rows than threads, a row's keys are shared out, and then its heads: those of a task share the rows it reads.
  const int64_t wanted = (2 * pool_.threads() + rows - 1) / rows;
  const int64_t key_tasks = wanted > 1 ? most_parts : 1;
  const int64_t most_groups = (heads + kHeadGroup - 1) / kHeadGroup;
  const int64_t at_once = most_groups / std::clamp<int64_t>((wanted + key_tasks - 1) / key_tasks, 1, most_groups);
  const int64_t group = at_once * kHeadGroup, head_tasks = (heads + group - 1) / group;

  const auto attend_part = [&](int64_t i, int64_t h, int64_t part, const PartResults& results, Arena& scratch) {
    const int64_t t = first_row + i, count = selection.count[t], size = key_parts(count).size;
    const bool all = count == position_[static_cast<size_t>(t)] + 1;
    AttendArgs args;
    args.q_latent = q_latent.at(i, h);
    args.q_latent_stride = q_latent.stride[1];
    args.q_rope = q_rope.at(i, h);
    args.q_rope_stride = q_rope.stride[1];
    args.heads = std::min(group, heads - h);
    args.kv = rows_of(layer, t);
    args.first = all ? part * size : 0;
    args.rows = all ? nullptr : selection.index + t * selection.stride + part * size;
    args.count = std::min(size, count - part * size);
    args.scale = scale;
    args.out = results.out + part * group * rank;
    args.out_stride = rank;
    args.log_sum = results.log_sum + part * group;
    kernels_.attend(args, scratch);
  };
  const auto join = [&](int64_t i, int64_t h, const PartResults& results) {
    const int64_t parts = key_parts(selection.count[first_row + i]).count;
    for (int64_t g = 0; g < std::min(group, heads - h); ++g) {
      float* out = q_latent.at(i, h + g);
      float most = results.log_sum[g], sum = 0;
      for (int64_t part = 1; part < parts; ++part) most = std::max(most, results.log_sum[part * group + g]);
      for (int64_t part = 0; part < parts; ++part) sum += std::exp(results.log_sum[part * group + g] - most);
      std::fill_n(out, rank, 0.0f);
      for (int64_t part = 0; part < parts; ++part)
        kernels_.add_weighted(std::exp(results.log_sum[part * group + g] - most) / sum,
                              results.out + (part * group + g) * rank, rank, out);
    }
  };
  const auto make_results = [&](int64_t tasks, Arena& arena) -> PartResults {
    return {arena.allocate<float>(static_cast<size_t>(tasks * most_parts * group * rank)),
            arena.allocate<float>(static_cast<size_t>(tasks * most_parts * group))};
  };
  const int64_t tasks = rows * head_tasks;
  if (key_tasks == 1) {
    pool_.parallel_for(tasks, 1, [&](int64_t begin, int64_t end, int worker) {
      Arena& scratch = worker_arenas_[static_cast<size_t>(worker)];
      for (int64_t task = begin; task < end; ++task) {
        const int64_t i = task / head_tasks, h = task % head_tasks * group;
        const ArenaScope scope(scratch);
        const PartResults results = make_results(1, scratch);
        const int64_t parts = key_parts(selection.count[first_row + i]).count;
        for (int64_t part = 0; part < parts; ++part) attend_part(i, h, part, results, scratch);
        join(i, h, results);
      }
    });
    return q_latent;
  }
  const PartResults all_results = make_results(tasks, arena_);
  const auto results_of = [&](int64_t task) -> PartResults {
    return {all_results.out + task * most_parts * group * rank, all_results.log_sum + task * most_parts * group};
  };
  pool_.parallel_for(tasks * key_tasks, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t task = n / key_tasks, part = n % key_tasks, i = task / head_tasks, h = task % head_tasks * group;
      if (part >= key_parts(selection.count[first_row + i]).count) continue;
      attend_part(i, h, part, results_of(task), worker_arenas_[static_cast<size_t>(worker)]);
    }
  });
  pool_.parallel_for(tasks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) join(task / head_tasks, task % head_tasks * group, results_of(task));
  });
  return q_latent;
}

Tensor Backend::project_values(Tensor o_latent, const MatrixView& kv_b, int64_t nope_dim, int64_t v_head_dim) {
  const Tensor y = make(o_latent.rows(), o_latent.dim[1] * v_head_dim);
  project_values_into(o_latent, kv_b, nope_dim, y);
  return y;
}

void Backend::project_values_into(Tensor o_latent, const MatrixView& kv_b, int64_t nope_dim, Tensor y) {
  const Timed time = timed(Operation::kProjectValues);
  const int64_t rows = o_latent.rows(), heads = o_latent.dim[1], rank = kv_b.cols, v_head_dim = y.cols() / heads;
  // The inputs of this product are never FP8 (docs/numerics.md).
  const InputRounding rounding = kv_b.dtype == DType::kF32 ? InputRounding::kExact : InputRounding::kBf16;
  pool_.parallel_for(heads, 1, [&](int64_t begin, int64_t end, int worker) {
    Arena& scratch = worker_arenas_[static_cast<size_t>(worker)];
    for (int64_t h = begin; h < end; ++h) {
      const ArenaScope scope(scratch);
      const PackedRows packed = make_packed(kernels_.row_format(rounding, kv_b.dtype), rows, rank, scratch);
      kernels_.pack(packed, rounding, {o_latent.at(0, h), o_latent.stride[0], nullptr}, 0, rows);
      const int64_t row = h * (nope_dim + v_head_dim) + nope_dim;
      const std::byte* next = h + 1 < heads ? kv_b.row(row + nope_dim + v_head_dim) : nullptr;
      kernels_.gemm({packed, kv_b, row, v_head_dim, y.data + h * v_head_dim, y.stride[0], next}, scratch);
    }
  });
}

}  // namespace fathom::cpu
