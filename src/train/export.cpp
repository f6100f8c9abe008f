#include "train/export.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "base/check.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_names.h"
#include "checkpoint/tensor_table.h"
#include "text/json.h"

namespace fathom::train {

namespace {

namespace fs = std::filesystem;

constexpr float kSmallestMax = 1e-12f;  // of a block of zeros: any scale will do

// (rows, cols) of one checkpoint tensor, in float32.
struct Source {
  const float* data = nullptr;
  int64_t rows = 1, cols = 1;
  std::span<const float> all() const { return {data, static_cast<size_t>(rows * cols)}; }
};

struct Planned {
  SafetensorsWriter::Declaration declaration;
  Source source;
  bool scale = false;  // the block scales of a FP8 matrix
};

// max |w| of each block, over 448, rounded up to a power of two.
std::vector<float> block_scales(const Source& w) {
  const int64_t across = (w.cols + kFp8Group - 1) / kFp8Group, down = (w.rows + kFp8Group - 1) / kFp8Group;
  std::vector<float> scales(static_cast<size_t>(across * down), kSmallestMax);
  for (int64_t r = 0; r < w.rows; ++r)
    for (int64_t c = 0; c < w.cols; ++c) {
      float& most = scales[static_cast<size_t>(r / kFp8Group * across + c / kFp8Group)];
      most = std::max(most, std::abs(w.data[r * w.cols + c]));
    }
  for (float& s : scales) s = ue8m0_ceil(s / kE4m3Max);
  return scales;
}

Status write_fp8(SafetensorsWriter& writer, const Source& w) {
  const std::vector<float> scales = block_scales(w);
  const int64_t across = (w.cols + kFp8Group - 1) / kFp8Group;
  std::vector<E4M3> row(static_cast<size_t>(w.cols));
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t c = 0; c < w.cols; ++c)
      row[static_cast<size_t>(c)] =
          to_e4m3(w.data[r * w.cols + c] / scales[static_cast<size_t>(r / kFp8Group * across + c / kFp8Group)]);
    FATHOM_RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(row))));
  }
  return {};
}

Status write_tensor(SafetensorsWriter& writer, const Planned& planned) {
  if (planned.scale) {
    const std::vector<float> scales = block_scales(planned.source);
    return writer.write(std::as_bytes(std::span(scales)));
  }
  switch (planned.declaration.dtype) {
    case DType::kF8E4M3:
      return write_fp8(writer, planned.source);
    case DType::kBF16: {
      std::vector<BF16> values;
      for (const float x : planned.source.all()) values.push_back(to_bf16(x));
      return writer.write(std::as_bytes(std::span(values)));
    }
    default:
      return writer.write(std::as_bytes(planned.source.all()));
  }
}

std::vector<Planned> plan(const ModelConfig& config, const Parameters& parameters) {
  std::vector<Planned> tensors;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    if (tensor.shared_copy) continue;
    const auto [name, expert] = stacked_name(tensor.name);
    const torch::Tensor whole = parameters.at(name);
    const torch::Tensor value = expert >= 0 ? whole[expert] : whole;
    FATHOM_CHECK(value.sizes().vec() == tensor.shape, "{}: {} but {} is trained", tensor.name, shape_text(tensor.shape),
                 shape_text(value.sizes().vec()));
    const Source source{value.data_ptr<float>(), tensor.shape[0], tensor.shape.size() > 1 ? tensor.shape[1] : 1};
    const bool fp8 = config.fp8 && tensor.quantized && tensor.shape.size() > 1;
    const DType dtype = fp8 ? DType::kF8E4M3 : tensor.f32 ? DType::kF32 : DType::kBF16;
    tensors.push_back({{tensor.name, dtype, tensor.shape}, source});
    if (fp8) tensors.push_back({{scale_name(tensor.name), DType::kF32, scale_shape(tensor.shape)}, source, true});
  }
  // Wide elements first: then every tensor is aligned to its element and can be used in place.
  std::ranges::stable_sort(tensors, std::greater<>{},
                           [](const Planned& t) { return dtype_size_bytes(t.declaration.dtype); });
  return tensors;
}

Status write_weights(const fs::path& file, const std::vector<Planned>& tensors) {
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const Planned& t : tensors) declarations.push_back(t.declaration);
  FATHOM_TRY(auto writer, SafetensorsWriter::create(file, std::move(declarations)));
  for (const Planned& t : tensors) FATHOM_RETURN_IF_ERROR(write_tensor(writer, t));
  return writer.finish();
}

Status write_texts(const fs::path& folder, const ModelConfig& config, const Recipe& recipe) {
  FATHOM_TRY(const std::string tokenizer, read_file(recipe.tokenizer));
  FATHOM_RETURN_IF_ERROR(write_file_atomically(folder / "tokenizer.json", tokenizer));
  Json described = Json::object();
  if (const fs::path beside = recipe.tokenizer.parent_path() / "tokenizer_config.json"; fs::exists(beside)) {
    FATHOM_TRY(const std::string text, read_file(beside));
    FATHOM_TRY(described, parse_json(text, beside.string(), {}));
    if (!described.is_object()) return fail("{}: found {}, expected an object", beside.string(), described.type_name());
  }
  described["model_max_length"] = config.max_position_embeddings;
  FATHOM_RETURN_IF_ERROR(write_file_atomically(folder / "tokenizer_config.json", described.dump(1) + "\n"));
  const Json generation = {{"bos_token_id", config.bos_token_id},
                           {"eos_token_id", config.eos_token_id},
                           {"do_sample", recipe.temperature > 0},
                           {"temperature", recipe.temperature},
                           {"top_p", recipe.top_p}};
  FATHOM_RETURN_IF_ERROR(write_file_atomically(folder / "generation_config.json", generation.dump(1) + "\n"));
  return write_file_atomically(folder / "config.json", config_to_json(config));
}

Status write_all(const fs::path& folder, const ModelConfig& config, const Parameters& parameters,
                 const Recipe& recipe) {
  FATHOM_RETURN_IF_ERROR(write_weights(folder / kSingleFile, plan(config, parameters)));
  return write_texts(folder, config, recipe);
}

// What was there stays, under another name, until the new folder has its own.
Status put_in_place(const fs::path& made, const fs::path& folder) {
  const fs::path old = folder.string() + ".replaced";
  std::error_code error;
  const bool replaces = fs::exists(folder);
  if (replaces) {
    fs::remove_all(old, error);
    fs::rename(folder, old, error);
    if (error) return fail("{}: cannot rename to {}: {}", folder.string(), old.string(), error.message());
  }
  fs::rename(made, folder, error);
  if (error) {
    std::error_code ignored;
    if (replaces) fs::rename(old, folder, ignored);
    return fail("{}: cannot rename to {}: {}", made.string(), folder.string(), error.message());
  }
  fs::remove_all(old, error);
  return {};
}

}  // namespace

Status export_checkpoint(const fs::path& folder, const ModelConfig& config, const Parameters& parameters,
                         const Recipe& recipe) {
  const fs::path partial = folder.string() + ".partial";
  std::error_code error;
  fs::remove_all(partial, error);
  if (!fs::create_directories(partial, error) && error)
    return fail("{}: cannot create the folder: {}", partial.string(), error.message());
  if (const Status written = write_all(partial, config, parameters, recipe); !written) {
    fs::remove_all(partial, error);
    return written;
  }
  return put_in_place(partial, folder);
}

}  // namespace fathom::train
