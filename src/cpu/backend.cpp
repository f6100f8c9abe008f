#include "cpu/backend.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ops/norm.h"

namespace fathom::cpu {

namespace {
// Rows per task of the row-wise operations: a row is tens of kilobytes of work, enough to pay for being handed out.
constexpr int64_t kRowGrain = 4;
}  // namespace

Backend::Backend(BackendSettings settings, ThreadPool& pool)
    : BackendBase(std::move(settings)),
      pool_(pool),
      kernels_(kernels_for(settings_.isa)),
      worker_arenas_(static_cast<size_t>(pool.threads())) {}

void Backend::begin_step(const Step& step) {
  begin_rows(step);
  const size_t half = settings_.rope_inv_freq.size();
  rope_cos_.resize(position_.size() * half);
  rope_sin_.resize(position_.size() * half);
  for (size_t t = 0; t < position_.size(); ++t)
    rope_angles(settings_.rope_inv_freq, position_[t], &rope_cos_[t * half], &rope_sin_[t * half]);
}

size_t Backend::scratch_bytes() const {
  size_t total = arena_.reserved_bytes();
  for (const Arena& arena : worker_arenas_) total += arena.reserved_bytes();
  return total;
}

Tensor Backend::rms_norm(Tensor x, std::span<const float> gain) {
  const Timed time = timed(Operation::kNorm);
  const Tensor y = make(x.rows(), x.cols());
  pool_.parallel_for(x.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    ref::rms_norm(x.rows_at(begin, end - begin), gain, settings_.rms_norm_eps, y.rows_at(begin, end - begin));
  });
  return y;
}

InputRounding Backend::rounding_for(const MatrixView& w) const {
  if (w.dtype == DType::kF32) return InputRounding::kExact;
  return w.dtype == DType::kF8E4M3 ? settings_.fp8_input : InputRounding::kBf16;
}

PackedRows Backend::pack(Tensor x, InputRounding rounding) {
  const int64_t stride = PackedRows::stride_for(x.cols()), groups = stride / kFp8Group;
  BF16* data = arena_.allocate<BF16>(static_cast<size_t>(x.rows() * stride));
  const bool scaled = rounding != InputRounding::kBf16;
  float* scale = scaled ? arena_.allocate<float>(static_cast<size_t>(x.rows() * groups)) : nullptr;
  pool_.parallel_for(x.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t)
      kernels_.pack_row(rounding, x.row(t), x.cols(), data + t * stride, scaled ? scale + t * groups : nullptr);
  });
  return {data, stride, scale};
}

void Backend::products(const PackedRows& x, Tensor x_exact, const MatrixView& w, Tensor y) {
  const int64_t panels = (w.rows + kPanelRows - 1) / kPanelRows;
  pool_.parallel_for(panels, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t n = p * kPanelRows, count = std::min(kPanelRows, w.rows - n);
      if (x.data)
        kernels_.gemm({x, nullptr, y.rows(), w, n, count, y.data + n, y.stride[0]},
                      worker_arenas_[static_cast<size_t>(worker)]);
      else
        kernels_.gemm_exact(x_exact.data, x_exact.stride[0], y.rows(), w, n, count, y.data + n, y.stride[0]);
    }
  });
}

Tensor Backend::linear(Tensor x, const MatrixView& w) {
  const Timed time = timed(Operation::kLinear);
  FATHOM_CHECK(x.cols() == w.cols, "input of {} columns, weight ({},{})", x.cols(), w.rows, w.cols);
  const Tensor y = make(x.rows(), w.rows);
  const ArenaScope packed_rows(arena_);
  const InputRounding rounding = rounding_for(w);
  products(rounding == InputRounding::kExact ? PackedRows{} : pack(x, rounding), x, w, y);
  return y;
}

Tensor Backend::linear_exact(Tensor x, const MatrixView& w) {
  if (w.dtype == DType::kF8E4M3) return linear(x, w);  // an FP8 router or indexer weight has no exact product to keep
  const Timed time = timed(Operation::kLinear);
  FATHOM_CHECK(x.cols() == w.cols, "input of {} columns, weight ({},{})", x.cols(), w.rows, w.cols);
  const Tensor y = make(x.rows(), w.rows);
  products({}, x, w, y);
  return y;
}

void Backend::add(Tensor x, Tensor delta) {
  const Timed time = timed(Operation::kOther);
  pool_.parallel_for(x.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t i = 0; i < x.cols(); ++i) x.row(t)[i] += delta.row(t)[i];
  });
}

void Backend::rope(Tensor x, RopePairs pairs) {
  const Timed time = timed(Operation::kRope);
  const int64_t half = x.dim[2] / 2;
  pool_.parallel_for(x.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float *cos = &rope_cos_[static_cast<size_t>(t * half)], *sin = &rope_sin_[static_cast<size_t>(t * half)];
      for (int64_t h = 0; h < x.dim[1]; ++h) {
        float* v = x.at(t, h);
        for (int64_t i = 0; i < half; ++i) {
          float& a = pairs == RopePairs::kInterleaved ? v[2 * i] : v[i];
          float& b = pairs == RopePairs::kInterleaved ? v[2 * i + 1] : v[i + half];
          const float a0 = a, b0 = b;
          a = a0 * cos[i] - b0 * sin[i];
          b = a0 * sin[i] + b0 * cos[i];
        }
      }
    }
  });
}

void Backend::append_latent(int64_t layer, Tensor latent, Tensor rope_key) {
  const Timed time = timed(Operation::kAppend);
  pool_.parallel_for(latent.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t)
      ref::write_latent_row(rows_of(layer, t), position_[static_cast<size_t>(t)], latent.row(t), rope_key.row(t));
  });
}

void Backend::append_index_key(int64_t layer, Tensor key) {
  const Timed time = timed(Operation::kAppend);
  pool_.parallel_for(key.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t)
      ref::write_index_key(rows_of(layer, t), position_[static_cast<size_t>(t)], key.row(t));
  });
}

Tensor Backend::absorb(Tensor q_nope, const MatrixView& kv_b, int64_t v_head_dim) {
  const Timed time = timed(Operation::kAbsorb);
  const int64_t rows = q_nope.rows(), heads = q_nope.dim[1], nope = q_nope.dim[2], rank = kv_b.cols;
  const Tensor y = make(rows, heads * rank).split_heads(heads);
  pool_.parallel_for(heads, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t h = begin; h < end; ++h)
      kernels_.absorb(
          {q_nope.at(0, h), q_nope.stride[0], rows, nope, kv_b, h * (nope + v_head_dim), y.at(0, h), y.stride[0]},
          worker_arenas_[static_cast<size_t>(worker)]);
  });
  return y;
}

Tensor Backend::attend(int64_t layer, Tensor q_latent, Tensor q_rope, const Selection& selection, float scale) {
  const Timed time = timed(Operation::kAttend);
  const int64_t rows = q_latent.rows(), heads = q_latent.dim[1];
  // With fewer rows than threads, a row's heads are shared out. A head's result does not depend on the cut.
  const int64_t parts = std::clamp<int64_t>((2 * pool_.threads() + rows - 1) / rows, 1, (heads + 15) / 16);
  const int64_t per_part = ((heads + parts - 1) / parts + 15) / 16 * 16;
  pool_.parallel_for(rows * parts, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t t = task / parts, h = task % parts * per_part;
      if (h >= heads) continue;
      const size_t row = static_cast<size_t>(t);
      const bool all = selection.count[t] == position_[row] + 1;
      kernels_.attend(
          {q_latent.at(t, h), q_latent.stride[1], q_rope.at(t, h), q_rope.stride[1], std::min(per_part, heads - h),
           rows_of(layer, t), all ? nullptr : selection.index + t * selection.stride, selection.count[t], scale,
           q_latent.at(t, h), q_latent.stride[1]},
          worker_arenas_[static_cast<size_t>(worker)]);
    }
  });
  return q_latent;
}

Tensor Backend::project_values(Tensor o_latent, const MatrixView& kv_b, int64_t nope_dim, int64_t v_head_dim) {
  const Timed time = timed(Operation::kProjectValues);
  const int64_t rows = o_latent.rows(), heads = o_latent.dim[1], rank = kv_b.cols;
  const Tensor y = make(rows, heads * v_head_dim);
  const ArenaScope packed_rows(arena_);
  // As (T·H, R): a head's rows are `heads` apart. The inputs of this product are never FP8 (docs/numerics.md).
  const bool exact = kv_b.dtype == DType::kF32;
  PackedRows packed;
  if (!exact) packed = pack(Tensor::matrix(o_latent.data, rows * heads, rank), InputRounding::kBf16);
  const int64_t panels = (v_head_dim + kPanelRows - 1) / kPanelRows;
  pool_.parallel_for(heads * panels, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t h = task / panels, v = task % panels * kPanelRows, count = std::min(kPanelRows, v_head_dim - v);
      const int64_t n = h * (nope_dim + v_head_dim) + nope_dim + v;
      float* out = y.data + h * v_head_dim + v;
      if (exact) {
        kernels_.gemm_exact(o_latent.at(0, h), o_latent.stride[0], rows, kv_b, n, count, out, y.cols());
      } else {
        const PackedRows head{packed.data + h * packed.stride, packed.stride * heads, nullptr};
        kernels_.gemm({head, nullptr, rows, kv_b, n, count, out, y.cols()},
                      worker_arenas_[static_cast<size_t>(worker)]);
      }
    }
  });
  return y;
}

}  // namespace fathom::cpu
