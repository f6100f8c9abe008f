#include "engine/trace.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/progress.h"
#include "engine/kv_pool.h"

namespace fathom {

namespace {

constexpr float kNotVisible = -1e30f;  // instead of −inf, which few readers of such files expect

template <typename T>
std::vector<T> copy_of(const TensorEntry& entry) {
  std::vector<T> out(entry.bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), entry.bytes.data(), out.size() * sizeof(T));
  return out;
}

Result<const TensorEntry*> find(const SafetensorsFile& file, const std::string& name, DType dtype,
                                const std::vector<int64_t>& shape) {
  const TensorEntry* entry = file.find(name);
  if (!entry) return fail("{}: tensor '{}' is missing", file.path().string(), name);
  if (entry->dtype != dtype || entry->shape != shape)
    return fail("{}: tensor '{}': found {} {}, expected {} {}", file.path().string(), name, dtype_name(entry->dtype),
                shape_text(entry->shape), dtype_name(dtype), shape_text(shape));
  return entry;
}

std::string numbered(std::string_view name, int64_t i) { return std::string(name) + "." + std::to_string(i); }

// Writes the rows of the step that is running to where they belong in the whole trace.
class Recorder final : public TraceSink {
 public:
  Recorder(const ModelConfig& config, int64_t tokens, const TraceReplay* replay, TraceRecording& out)
      : config_(config), tokens_(tokens), replay_(replay), out_(out) {}

  void begin(int64_t first_row) { first_row_ = first_row; }

  void layer_value(std::string_view name, int64_t layer, const Tensor& x) override {
    auto& value = out_.value(numbered(name, layer), DType::kF32, rows(layer), x.cols());
    for (int64_t t = 0; t < x.rows(); ++t) std::copy_n(x.row(t), x.cols(), value.row<float>(first_row_ + t));
  }
  void index_scores(int64_t layer, int64_t row, std::span<const float> scores) override {
    auto& value = out_.value(numbered("index_score", layer), DType::kF32, rows(layer), rows(layer));
    float* out = value.row<float>(first_row_ + row);
    std::fill(std::copy(scores.begin(), scores.end(), out), out + rows(layer), kNotVisible);
  }
  void selected(int64_t layer, int64_t row, std::span<const int32_t> keys) override {
    auto& value = out_.value(numbered("selected", layer), DType::kU8, rows(layer), rows(layer));
    for (int32_t s : keys) value.row<uint8_t>(first_row_ + row)[s] = 1;
  }
  void routing(int64_t layer, const int32_t* expert, const float* weight, int64_t count, int64_t top_k) override {
    const int64_t j = layer - config_.first_k_dense_replace;
    auto& e = out_.value(numbered("expert", j), DType::kI32, rows(layer), top_k);
    auto& w = out_.value(numbered("expert_weight", j), DType::kF32, rows(layer), top_k);
    std::copy_n(expert, count * top_k, e.row<int32_t>(first_row_));
    std::copy_n(weight, count * top_k, w.row<float>(first_row_));
  }
  std::span<const int32_t> forced_selection(int64_t layer, int64_t position) override {
    return replay_ ? replay_->selection(layer, position) : std::span<const int32_t>{};
  }
  std::span<const int32_t> forced_experts(int64_t layer, int64_t position) override {
    return replay_ ? replay_->experts(layer, position) : std::span<const int32_t>{};
  }

 private:
  int64_t rows(int64_t layer) const { return layer < config_.num_hidden_layers ? tokens_ : tokens_ - 1; }

  const ModelConfig& config_;
  int64_t tokens_;
  const TraceReplay* replay_;
  TraceRecording& out_;
  int64_t first_row_ = 0;
};

}  // namespace

TraceRecording::Value& TraceRecording::value(const std::string& name, DType dtype, int64_t rows, int64_t cols) {
  Value& value = tensors_[name];
  if (value.bytes.empty()) {
    value = {dtype, rows, cols, {}};
    value.bytes.resize(static_cast<size_t>(rows * cols) * dtype_size_bytes(dtype));
  }
  return value;
}

Status TraceRecording::write(const std::filesystem::path& path) const {
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const auto& [name, value] : tensors_) declarations.push_back({name, value.dtype, {value.rows, value.cols}});
  FATHOM_TRY(auto writer, SafetensorsWriter::create(path, std::move(declarations)));
  for (const auto& [name, value] : tensors_) FATHOM_RETURN_IF_ERROR(writer.write(value.bytes));
  return writer.finish();
}

Result<TraceReplay> TraceReplay::load(const SafetensorsFile& file, const ModelConfig& config, int64_t tokens) {
  TraceReplay replay;
  const int64_t layers = config.total_layers();
  replay.selection_.resize(static_cast<size_t>(layers));
  replay.experts_.resize(static_cast<size_t>(layers));
  for (int64_t layer = 0; layer < layers; ++layer) {
    const int64_t rows = layer < config.num_hidden_layers ? tokens : tokens - 1;
    if (config.sparse()) {
      const std::string name = numbered("selected", layer);
      FATHOM_TRY(const TensorEntry* entry, find(file, name, DType::kU8, {rows, rows}));
      const auto mask = copy_of<uint8_t>(*entry);
      auto& by_row = replay.selection_[static_cast<size_t>(layer)];
      for (int64_t t = 0; t < rows; ++t) {
        std::vector<int32_t> keys;
        for (int64_t s = 0; s < rows; ++s) {
          if (!mask[static_cast<size_t>(t * rows + s)]) continue;
          if (s > t) return fail("{}: {}: row {} selects the later key {}", file.path().string(), name, t, s);
          keys.push_back(static_cast<int32_t>(s));
        }
        if (keys.empty() || static_cast<int64_t>(keys.size()) > config.index_topk)
          return fail("{}: {}: row {} selects {} keys, expected 1 to {}", file.path().string(), name, t, keys.size(),
                      config.index_topk);
        by_row.push_back(std::move(keys));
      }
    }
    if (config.is_moe(layer)) {
      const std::string name = numbered("expert", layer - config.first_k_dense_replace);
      FATHOM_TRY(const TensorEntry* entry, find(file, name, DType::kI32, {rows, config.num_experts_per_tok}));
      const auto experts = copy_of<int32_t>(*entry);
      for (int32_t e : experts)
        if (e < 0 || e >= config.n_routed_experts)
          return fail("{}: {}: expert {}, expected 0 to {}", file.path().string(), name, e,
                      config.n_routed_experts - 1);
      const size_t k = static_cast<size_t>(config.num_experts_per_tok);
      for (size_t t = 0; t < static_cast<size_t>(rows); ++t)
        replay.experts_[static_cast<size_t>(layer)].emplace_back(
            experts.begin() + static_cast<std::ptrdiff_t>(t * k),
            experts.begin() + static_cast<std::ptrdiff_t>((t + 1) * k));
    }
  }
  return replay;
}

std::span<const int32_t> TraceReplay::selection(int64_t layer, int64_t position) const {
  const auto& rows = selection_[static_cast<size_t>(layer)];
  return rows.empty() ? std::span<const int32_t>{} : rows[static_cast<size_t>(position)];
}

std::span<const int32_t> TraceReplay::experts(int64_t layer, int64_t position) const {
  const auto& rows = experts_[static_cast<size_t>(layer)];
  return rows.empty() ? std::span<const int32_t>{} : rows[static_cast<size_t>(position)];
}

Result<std::vector<int32_t>> trace_tokens(const SafetensorsFile& file, const ModelConfig& config) {
  const TensorEntry* entry = file.find("tokens");
  if (!entry) return fail("{}: tensor 'tokens' is missing", file.path().string());
  if (entry->dtype != DType::kI32 || entry->shape.size() != 1 || entry->count() < 1)
    return fail("{}: tensor 'tokens': found {} {}, expected I32 of one dimension and at least one token",
                file.path().string(), dtype_name(entry->dtype), shape_text(entry->shape));
  if (entry->count() > config.max_position_embeddings)
    return fail("{}: {} tokens, the model's context is {}", file.path().string(), entry->count(),
                config.max_position_embeddings);
  auto tokens = copy_of<int32_t>(*entry);
  for (int32_t id : tokens)
    if (id < 0 || id >= config.vocab_size)
      return fail("{}: tokens: id {}, expected 0 to {}", file.path().string(), id, config.vocab_size - 1);
  return tokens;
}

Result<TraceRecording> run_trace(const WeightStore& store, ThreadPool& threads, std::span<const int32_t> tokens,
                                 const TraceSettings& settings) {
  const ModelConfig& config = store.config();
  const int64_t count = static_cast<int64_t>(tokens.size());
  const LatentFormat latent_format =
      settings.runner.isa == Isa::kReference ? LatentFormat::kF32 : settings.latent_format;
  FATHOM_TRY(auto pool, KvPool::create(kv_layout(config, latent_format), config.total_layers(), count));
  KvSequence sequence(pool);
  FATHOM_CHECK(sequence.reserve(count), "a pool of {} tokens has no room for them", count);
  const auto runner = make_cpu_runner(store, settings.runner, threads);

  TraceRecording out;
  Recorder recorder(config, count, settings.replay, out);
  auto& logits = out.value("logits", DType::kF32, count, config.vocab_size);
  TraceRecording::Value* mtp_logits = nullptr;
  if (config.num_nextn_predict_layers > 0 && count > 1)
    mtp_logits = &out.value("mtp_logits", DType::kF32, count - 1, config.vocab_size);

  Progress progress("tracing", static_cast<uint64_t>(count), "tokens");
  std::vector<int32_t> all_rows;
  for (int64_t start = 0; start < count;) {
    int64_t rows = std::min(settings.chunk, count - start);
    if (settings.decode_from > 0)
      rows = start < settings.decode_from ? std::min(rows, settings.decode_from - start) : 1;
    const bool prefill = settings.decode_from == 0 || start < settings.decode_from;
    Slice slice{start, rows, sequence.blocks(), settings.prompt_form && prefill};
    Step step;
    step.tokens = tokens.subspan(static_cast<size_t>(start), static_cast<size_t>(rows));
    step.slices = {&slice, 1};
    step.kv = &pool.cache();
    step.trace = &recorder;
    all_rows.resize(static_cast<size_t>(rows));
    for (int64_t t = 0; t < rows; ++t) all_rows[static_cast<size_t>(t)] = static_cast<int32_t>(t);
    step.logit_rows = all_rows;
    recorder.begin(start);
    const StepOutput main = runner->forward(step);
    std::copy_n(main.logits.data, rows * config.vocab_size, logits.row<float>(start));

    // Row t of the MTP layer wants token t + 1: the last token of all has none.
    const int64_t mtp_rows = std::min(rows, count - 1 - start);
    if (mtp_logits && mtp_rows > 0) {
      slice.count = mtp_rows;
      step.tokens = tokens.subspan(static_cast<size_t>(start + 1), static_cast<size_t>(mtp_rows));
      step.logit_rows = std::span(all_rows).first(static_cast<size_t>(mtp_rows));
      const StepOutput mtp = runner->draft(step, main.hidden.rows_at(0, mtp_rows));
      std::copy_n(mtp.logits.data, mtp_rows * config.vocab_size, mtp_logits->row<float>(start));
    }
    start += rows;
    progress.add(static_cast<uint64_t>(rows));
  }
  return out;
}

}  // namespace fathom
