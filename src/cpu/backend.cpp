#include "cpu/backend.h"

#include <algorithm>
#include <utility>

#include "ops/norm.h"

namespace fathom::cpu {

Backend::Backend(BackendSettings settings, ThreadPool& pool)
    : BackendBase(std::move(settings)),
      pool_(pool),
      kernels_(kernels_for(settings_.isa)),
      worker_arenas_(static_cast<size_t>(pool.threads())) {}

void Backend::begin_step(const Step& step) {
  begin_rows(step);
  compute_angles();
}

void Backend::keep_logit_rows() {
  keep_rows();
  compute_angles();
}

void Backend::compute_angles() {
  const size_t half = settings_.rope_inv_freq.size();
  rope_cos_.resize(position_.size() * half);
  rope_sin_.resize(position_.size() * half);
  for (size_t t = 0; t < position_.size(); ++t)
    rope_angles(settings_.rope_inv_freq, position_[t], rope_cos_.data() + t * half, rope_sin_.data() + t * half);
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
    for (int64_t t = begin; t < end; ++t)
      kernels_.rms_norm(x.row(t), gain.data(), x.cols(), settings_.rms_norm_eps, y.row(t));
  });
  return y;
}

Tensor Backend::layer_norm(Tensor x, std::span<const float> gain, std::span<const float> bias) {
  const Timed time = timed(Operation::kNorm);
  const Tensor y = make(x.rows(), x.cols());
  pool_.parallel_for(x.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    const int64_t count = end - begin;
    ref::layer_norm(x.rows_at(begin, count), gain, bias, kLayerNormEps, y.rows_at(begin, count));
  });
  return y;
}

InputRounding Backend::rounding_for(const MatrixView& w) const {
  if (w.dtype == DType::kF32) return InputRounding::kExact;
  return w.dtype == DType::kF8E4M3 ? settings_.fp8_input : InputRounding::kBf16;
}

PackedRows Backend::make_packed(RowFormat format, int64_t rows, int64_t k, Arena& arena) const {
  PackedRows packed{format, rows, k, nullptr, nullptr};
  packed.data = arena.allocate<std::byte>(kernels_.packed_bytes(format, rows, k));
  if (format == RowFormat::kBf16Scaled)
    packed.scale = arena.allocate<float>(static_cast<size_t>(rows * ((k + kFp8Group - 1) / kFp8Group)));
  return packed;
}

// Weight rows of `row_bytes` each that are one task.
int64_t Backend::rows_per_task(int64_t rows, int64_t row_bytes, int64_t input_rows) const {
  // One or two input rows: reading is all, in stretches that are long enough for memory, and short enough that all threads end together.
  if (input_rows <= 2) {
    constexpr int64_t kLeast = 65536, kMost = 131072;
    const int64_t bytes = std::clamp(rows * row_bytes / (4 * pool_.threads()), kLeast, kMost);
    constexpr int64_t kLeastRows = 16, kMostRows = 64;  // that stretches are cut of
    int64_t unit = kMostRows;
    while (unit > kLeastRows && rows < 2 * unit * pool_.threads()) unit /= 2;  // something for each thread
    return std::max<int64_t>(1, bytes / (unit * row_bytes)) * unit;
  }
  constexpr int64_t kMost = 256;  // an expanded panel must stay in L2
  // With few, each begins by asking for its rows: long stretches of memory. Otherwise pieces to share out evenly.
  const bool few = input_rows <= 32;
  const int64_t least = few ? 32 : kernels_.gemm_rows;
  const int64_t share = (rows + (few ? 2 : 4) * pool_.threads() - 1) / ((few ? 2 : 4) * pool_.threads());
  return std::clamp((share + least - 1) / least * least, least, few ? std::max(least, rows) : kMost);
}

Tensor Backend::product(Tensor x, const MatrixView& w, InputRounding rounding) {
  FATHOM_CHECK(x.cols() == w.cols, "input of {} columns, weight ({},{})", x.cols(), w.rows, w.cols);
  const Tensor y = make(x.rows(), w.rows);
  const ArenaScope temporaries(arena_);
  const PackedRows packed = make_packed(kernels_.row_format(rounding, w.dtype), x.rows(), w.cols, arena_);
  pool_.parallel_for(x.rows(), kPackGroup, [&](int64_t begin, int64_t end, int) {
    kernels_.pack(packed, rounding, {x.data, x.stride[0], nullptr}, begin, end);
  });
  const int64_t per_task = rows_per_task(w.rows, w.row_bytes(), x.rows()), tasks = (w.rows + per_task - 1) / per_task;
  pool_.parallel_for(tasks, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task * per_task, count = std::min(per_task, w.rows - n);
      kernels_.gemm({packed, w, n, count, y.data + n, y.stride[0], n + count < w.rows ? w.row(n + count) : nullptr},
                    worker_arenas_[static_cast<size_t>(worker)]);
    }
  });
  return y;
}

Tensor Backend::linear(Tensor x, const MatrixView& w) {
  const Timed time = timed(Operation::kLinear);
  return product(x, w, rounding_for(w));
}

Tensor Backend::linear_exact(Tensor x, const MatrixView& w) {
  if (w.dtype == DType::kF8E4M3) return linear(x, w);  // an FP8 router or indexer weight has no exact product to keep
  const Timed time = timed(Operation::kLinear);
  return product(x, w, InputRounding::kExact);
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
      const float *cos = rope_cos_.data() + t * half, *sin = rope_sin_.data() + t * half;
      for (int64_t h = 0; h < x.dim[1]; ++h) kernels_.rope(pairs, cos, sin, half, x.at(t, h));
    }
  });
}

void Backend::append_latent(int64_t layer, Tensor latent, Tensor rope_key) {
  if (step_->cached) return;
  const Timed time = timed(Operation::kAppend);
  pool_.parallel_for(latent.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t)
      ref::write_latent_row(rows_of(layer, t), position_[static_cast<size_t>(t)], latent.row(t), rope_key.row(t));
  });
}

void Backend::append_index_key(int64_t layer, Tensor key) {
  if (step_->cached) return;
  const Timed time = timed(Operation::kAppend);
  pool_.parallel_for(key.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const KvRows kv = rows_of(layer, t);
      const int64_t s = position_[static_cast<size_t>(t)];
      *kv.index_scale(s) = kernels_.index_key(key.row(t), key.cols(), kv.index_codes(s));
    }
  });
}

Routing Backend::route(const RouterSettings& settings, int64_t layer, Tensor logits, std::span<const float> bias) {
  const Timed time = timed(Operation::kRoute);
  const Routing routing = make_routing(logits.rows(), settings.top_k);
  pool_.parallel_for(logits.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    route_rows(settings, layer, logits, bias, begin, end, routing);
  });
  return routing;
}

}  // namespace fathom::cpu
