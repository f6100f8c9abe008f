#include "checkpoint/weight_store.h"

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "checkpoint/verify.h"

namespace fathom {

namespace {

constexpr std::string_view kWeightSuffix = ".weight";

bool is_aligned(const TensorEntry& entry) {
  return reinterpret_cast<uintptr_t>(entry.bytes.data()) % dtype_size_bytes(entry.dtype) == 0;
}

constexpr size_t kCopyAlignment = 64;  // one cache line
size_t padded(size_t bytes) { return (bytes + kCopyAlignment - 1) / kCopyAlignment * kCopyAlignment; }

std::vector<float> widened(const TensorEntry& entry) {
  std::vector<float> values(static_cast<size_t>(entry.count()));
  if (entry.dtype == DType::kF32) {
    std::memcpy(values.data(), entry.bytes.data(), entry.bytes.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    BF16 x;
    std::memcpy(&x, entry.bytes.data() + i * sizeof x, sizeof x);
    values[i] = to_float(x);
  }
  return values;
}

void check_finite(const std::string& name, std::span<const float> values, Problems& problems) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      return problems.add("{}: the value at [{}] is {}, expected a finite number", name, i, values[i]);
}

}  // namespace

Result<std::unique_ptr<WeightStore>> WeightStore::open(const std::filesystem::path& folder) {
  auto store = std::unique_ptr<WeightStore>(new WeightStore);
  store->folder_ = folder;
  FATHOM_TRY(store->config_, load_config(folder / "config.json"));

  Problems problems;
  TensorTable table = TensorTable::open(folder, problems);
  if (!table.found()) return tl::unexpected(problems.error("no weights"));
  const Verification verified = verify_tensors(store->config_, table, problems);
  verify_scales(verified.tensors, problems);

  size_t unaligned_bytes = 0;
  for (const auto& [expected, weight, scale] : verified.tensors) {
    if (expected.shape.size() == 1) {
      auto values = widened(*weight);
      check_finite(expected.name, values, problems);
      store->vectors_.emplace(expected.name, std::move(values));
      continue;
    }
    if (!is_aligned(*weight)) unaligned_bytes += padded(weight->bytes.size());
    if (scale && !is_aligned(*scale)) unaligned_bytes += padded(scale->bytes.size());
  }
  if (!problems.empty()) return tl::unexpected(problems.error(folder.string()));

  // One allocation for all: a mapping each would run into the system's limit on their number.
  FATHOM_TRY(store->copies_, Buffer::try_allocate(unaligned_bytes));
  for (const auto& [expected, weight, scale] : verified.tensors) {
    if (expected.shape.size() != 2) continue;
    MatrixView view;
    view.dtype = weight->dtype;
    view.rows = expected.shape[0];
    view.cols = expected.shape[1];
    view.data = store->in_place(*weight);
    if (scale) {
      view.scale = static_cast<const float*>(store->in_place(*scale));
      view.pow2_scale = all_pow2(view.scale, static_cast<int64_t>(scale->bytes.size() / sizeof(float)));
    }
    store->matrices_.emplace(expected.name.substr(0, expected.name.size() - kWeightSuffix.size()), view);
  }
  store->shards_ = std::move(table).take_shards();
  return store;
}

const void* WeightStore::in_place(const TensorEntry& entry) {
  if (is_aligned(entry)) return entry.bytes.data();
  std::byte* copy = copies_.data() + copied_bytes_;
  std::memcpy(copy, entry.bytes.data(), entry.bytes.size());
  copied_bytes_ += padded(entry.bytes.size());
  return copy;
}

MatrixView WeightStore::matrix(std::string_view name) const {
  const auto place = matrices_.find(name);
  FATHOM_CHECK(place != matrices_.end(), "no matrix \"{}\" in {}", name, folder_.string());
  return place->second;
}

std::span<const float> WeightStore::vector(std::string_view name) const {
  const auto place = vectors_.find(name);
  FATHOM_CHECK(place != vectors_.end(), "no vector \"{}\" in {}", name, folder_.string());
  return place->second;
}

uint64_t WeightStore::mapped_bytes() const {
  uint64_t total = 0;
  for (const SafetensorsFile& shard : shards_) total += shard.file_bytes();
  return total;
}

uint64_t WeightStore::copied_bytes() const {
  uint64_t total = copied_bytes_;
  for (const auto& [name, values] : vectors_) total += values.size() * sizeof(float);
  return total;
}

}  // namespace fathom
