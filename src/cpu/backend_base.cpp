#include "cpu/backend_base.h"

#include <algorithm>
#include <numeric>

namespace fathom::cpu {

void BackendBase::begin_rows(const Step& step) {
  arena_.release({});
  set_rows(step);
}

void BackendBase::set_rows(const Step& step) {
  step_ = &step;
  position_.clear();
  slice_.clear();
  for (size_t i = 0; i < step.slices.size(); ++i) {
    for (int64_t j = 0; j < step.slices[i].count; ++j) {
      position_.push_back(static_cast<int32_t>(step.slices[i].start + j));
      slice_.push_back(static_cast<int32_t>(i));
    }
  }
  FATHOM_CHECK(position_.size() == step.tokens.size(), "{} rows in the slices, {} tokens", position_.size(),
               step.tokens.size());
}

void BackendBase::keep_rows() {
  kept_tokens_.clear(), kept_slices_.clear();
  int32_t before = -2;
  for (const int32_t row : step_->logit_rows) {
    const auto r = static_cast<size_t>(row);
    FATHOM_CHECK(row > before && r < position_.size(), "row {} of {} after row {}", row, position_.size(), before);
    if (row == before + 1 && slice_[r] == slice_[r - 1]) {
      ++kept_slices_.back().count;
    } else {
      const Slice& slice = step_->slices[static_cast<size_t>(slice_[r])];
      kept_slices_.push_back({position_[r], 1, slice.blocks, slice.prompt});
    }
    kept_tokens_.push_back(step_->tokens[r]);
    before = row;
  }
  kept_rows_.resize(kept_tokens_.size());
  std::iota(kept_rows_.begin(), kept_rows_.end(), 0);
  kept_ = *step_;
  kept_.tokens = kept_tokens_, kept_.slices = kept_slices_, kept_.logit_rows = kept_rows_;
  set_rows(kept_);
}

Tensor BackendBase::embed(const MatrixView& table, std::span<const int32_t> tokens) {
  const Timed time = timed(Operation::kEmbed);
  const Tensor y = make(static_cast<int64_t>(tokens.size()), table.cols);
  for (int64_t t = 0; t < y.rows(); ++t) {
    const int64_t token = tokens[static_cast<size_t>(t)];
    FATHOM_CHECK(token >= 0 && token < table.rows, "token {} of {}", token, table.rows);
    if (table.dtype == DType::kBF16)
      for (int64_t i = 0; i < table.cols; ++i) y.row(t)[i] = to_float(table.bf16()[token * table.cols + i]);
    else
      for (int64_t i = 0; i < table.cols; ++i) y.row(t)[i] = table.at(token, i);
  }
  return y;
}

Tensor BackendBase::concat(Tensor a, Tensor b) {
  const Timed time = timed(Operation::kOther);
  const Tensor y = make(a.rows(), a.cols() + b.cols());
  for (int64_t t = 0; t < y.rows(); ++t) {
    std::copy_n(a.row(t), a.cols(), y.row(t));
    std::copy_n(b.row(t), b.cols(), y.row(t) + a.cols());
  }
  return y;
}

Tensor BackendBase::gather(Tensor x, std::span<const int32_t> rows) {
  const Timed time = timed(Operation::kOther);
  const Tensor y = make(static_cast<int64_t>(rows.size()), x.cols());
  for (int64_t t = 0; t < y.rows(); ++t) std::copy_n(x.row(rows[static_cast<size_t>(t)]), x.cols(), y.row(t));
  return y;
}

Selection BackendBase::all_visible() {
  int32_t* count = arena_.allocate<int32_t>(position_.size());
  for (size_t t = 0; t < position_.size(); ++t) count[t] = position_[t] + 1;
  return {nullptr, count, 0};
}

bool BackendBase::selects_all() const {
  return !step_->trace && *std::max_element(position_.begin(), position_.end()) < settings_.index_topk;
}

void BackendBase::route_rows(const RouterSettings& settings, int64_t layer, Tensor logits, std::span<const float> bias,
                             int64_t begin, int64_t end, const Routing& routing) const {
  const int64_t k = settings.top_k;
  for (int64_t t = begin; t < end; ++t) {
    const std::span<const int32_t> forced = step_->trace
                                                ? step_->trace->forced_experts(layer, position_[static_cast<size_t>(t)])
                                                : std::span<const int32_t>{};
    FATHOM_CHECK(forced.empty() || static_cast<int64_t>(forced.size()) == k, "{} forced experts, top-k {}",
                 forced.size(), k);
    fathom::route(settings, logits.row(t), bias, forced.empty() ? nullptr : forced.data(), routing.expert + t * k,
                  routing.weight + t * k);
  }
}

}  // namespace fathom::cpu
