#include "checkpoint/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <unordered_set>
#include <utility>

#include "base/progress.h"
#include "base/thread_pool.h"

namespace fathom {

namespace {

class Verifier {
 public:
  Verifier(const ModelConfig& config, const TensorTable& table, Problems& problems)
      : config_(config), table_(table), problems_(problems) {}

  Verification run() {
    const std::string mtp_prefix = fmt::format("model.layers.{}.", config_.num_hidden_layers);
    const bool mtp_wanted = config_.num_nextn_predict_layers > 0;
    const bool mtp_absent = mtp_wanted && !has_prefix(mtp_prefix);
    if (mtp_absent)
      problems_.add(
          "the config has an MTP layer but there are no tensors {}*: set num_nextn_predict_layers to 0 in "
          "config.json to run without it",
          mtp_prefix);
    for (ExpectedTensor& expected : expected_tensors(config_))
      if (!mtp_absent || expected.part != ModelPart::kMtp) check(std::move(expected));

    size_t unused_mtp = 0;
    for (const TensorEntry* entry : table_.tensors()) {
      const std::string_view name = entry->name;
      if (used_.contains(entry)) continue;
      if (!mtp_wanted && name.starts_with(mtp_prefix))
        ++unused_mtp;
      else if ((name.starts_with("model.") || name.starts_with("lm_head")) && !name.ends_with("rotary_emb.inv_freq"))
        problems_.add("{}: surplus, the config implies no such tensor", in_quotes(name));
    }
    if (unused_mtp > 0)
      out_.notes.push_back(
          fmt::format("{} tensors of an MTP layer are not used: num_nextn_predict_layers is 0", unused_mtp));
    return std::move(out_);
  }

 private:
  bool has_prefix(std::string_view prefix) const {
    // An MTP layer in a shard that cannot be read is reported with that shard.
    return table_.any_unreadable() || std::any_of(table_.tensors().begin(), table_.tensors().end(),
                                                  [&](const TensorEntry* e) { return e->name.starts_with(prefix); });
  }

  const TensorEntry* use(const std::string& name, bool required) {
    const TensorEntry* entry = table_.find(name);
    if (entry)
      used_.insert(entry);
    else if (required && !table_.unreadable(name))
      problems_.add("{}: missing", name);
    return entry;
  }

  bool has_shape(const TensorEntry& entry, const std::vector<int64_t>& shape) {
    if (entry.shape == shape) return true;
    problems_.add("{}: found shape {}, expected {}", entry.name, shape_text(entry.shape), shape_text(shape));
    return false;
  }

  void check(ExpectedTensor expected) {
    const TensorEntry* weight = use(expected.name, !expected.shared_copy);
    if (!weight) return;
    const bool matrix = expected.shape.size() == 2;
    bool sound = has_shape(*weight, expected.shape);
    const TensorEntry* scale = nullptr;
    switch (weight->dtype) {
      case DType::kF8E4M3:
        if (matrix) {
          const std::string name = scale_name(expected.name);
          scale = use(name, true);
          if (scale && scale->dtype != DType::kF32) {
            problems_.add("{}: found {}, expected F32", name, dtype_name(scale->dtype));
            sound = false;
          }
          sound = scale && has_shape(*scale, scale_shape(expected.shape)) && sound;
          break;
        }
        [[fallthrough]];
      default:
        problems_.add("{}: found {}, expected {}BF16 or F32", expected.name, dtype_name(weight->dtype),
                      matrix ? "F8_E4M3, " : "");
        sound = false;
        break;
      case DType::kBF16:
      case DType::kF32:
        break;
    }
    // Both are multiplied with the same input, in one pass.
    if (constexpr std::string_view kUp = ".up_proj.weight"; expected.name.ends_with(kUp)) {
      const std::string gate = expected.name.substr(0, expected.name.size() - kUp.size()) + ".gate_proj.weight";
      const TensorEntry* other = table_.find(gate);
      if (other && other->dtype != weight->dtype)
        problems_.add("{}: found {}, expected {} as in {}", expected.name, dtype_name(weight->dtype),
                      dtype_name(other->dtype), gate);
    }
    if (sound && !expected.shared_copy) out_.tensors.push_back({std::move(expected), weight, scale});
  }

  const ModelConfig& config_;
  const TensorTable& table_;
  Problems& problems_;
  std::unordered_set<const TensorEntry*> used_;
  Verification out_;
};

// The first scale that is not finite and positive: its index and value. Bytes may have any alignment.
std::optional<std::pair<size_t, float>> first_bad_scale(std::span<const std::byte> bytes) {
  const size_t count = bytes.size() / sizeof(float);
  for (size_t i = 0; i < count; ++i) {
    float value;
    std::memcpy(&value, bytes.data() + i * sizeof(float), sizeof value);
    if (!(std::isfinite(value) && value > 0)) return std::pair(i, value);
  }
  return std::nullopt;
}

}  // namespace

Verification verify_tensors(const ModelConfig& config, const TensorTable& table, Problems& problems) {
  return Verifier(config, table, problems).run();
}

void verify_scales(const std::vector<VerifiedTensor>& tensors, Problems& problems) {
  // Cold, this is tens of thousands of small reads: several threads keep the disk busy. Small checkpoints need no pool.
  constexpr int64_t kBatch = 4096;
  ThreadPool pool(tensors.size() < kBatch ? 1 : 0);
  Progress progress("Reading scales", tensors.size(), "tensors");
  std::vector<std::optional<std::pair<size_t, float>>> bad(tensors.size());
  const auto count = static_cast<int64_t>(tensors.size());
  for (int64_t begin = 0; begin < count; begin += kBatch) {
    const int64_t batch = std::min(kBatch, count - begin);
    pool.parallel_for(batch, 32, [&](int64_t first, int64_t last, int) {
      for (int64_t i = begin + first; i < begin + last; ++i) {
        const auto at = static_cast<size_t>(i);
        if (tensors[at].scale) bad[at] = first_bad_scale(tensors[at].scale->bytes);
      }
    });
    progress.set(static_cast<uint64_t>(begin + batch));
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!bad[i]) continue;
    const TensorEntry& scale = *tensors[i].scale;
    const auto cols = static_cast<size_t>(scale.shape[1]);
    problems.add("{}: the scale at [{}, {}] is {}, expected a positive number", scale.name, bad[i]->first / cols,
                 bad[i]->first % cols, bad[i]->second);
  }
}

}  // namespace fathom
