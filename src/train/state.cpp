#include "train/state.h"

#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

#include "checkpoint/problems.h"
#include "checkpoint/safetensors.h"

namespace fathom::train {

namespace {

struct Entry {
  std::string name;
  torch::Tensor value;
};

std::vector<Entry> entries(const Parameters& parameters, AdamW* optimizer) {
  std::vector<Entry> list;
  for (const Parameter& p : parameters.all()) list.push_back({p.name, p.value.detach()});
  if (!optimizer) return list;
  for (size_t i = 0; i < parameters.all().size(); ++i) {
    const AdamW::Moments& moments = optimizer->moments()[i];
    if (!moments.m.defined()) continue;
    list.push_back({parameters.all()[i].name + ".m", moments.m});
    list.push_back({parameters.all()[i].name + ".v", moments.v});
  }
  return list;
}

size_t size_bytes(const torch::Tensor& value) { return static_cast<size_t>(value.numel()) * sizeof(float); }

Status write_entries(const std::filesystem::path& file, const std::vector<Entry>& list,
                     const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const Entry& e : list) declarations.push_back({e.name, DType::kF32, e.value.sizes().vec()});
  FATHOM_TRY(auto writer, SafetensorsWriter::create(file, std::move(declarations), metadata));
  for (const Entry& e : list)
    FATHOM_RETURN_IF_ERROR(
        writer.write(std::as_bytes(std::span(e.value.data_ptr<float>(), static_cast<size_t>(e.value.numel())))));
  return writer.finish();
}

Result<SafetensorsFile> read_entries(const std::filesystem::path& path, const std::vector<Entry>& list) {
  FATHOM_TRY(SafetensorsFile file, SafetensorsFile::open(path));
  Problems problems;
  for (const Entry& e : list) {
    const TensorEntry* found = file.find(e.name);
    if (!found)
      problems.add("{}: is missing", e.name);
    else if (found->dtype != DType::kF32 || found->shape != e.value.sizes().vec())
      problems.add("{}: found {} {}, expected F32 {}", e.name, dtype_name(found->dtype), shape_text(found->shape),
                   shape_text(e.value.sizes().vec()));
  }
  if (!problems.empty()) return tl::unexpected(problems.error(path.string()));
  for (const Entry& e : list)
    std::memcpy(e.value.data_ptr<float>(), file.find(e.name)->bytes.data(), size_bytes(e.value));
  return file;
}

Result<int64_t> number(const SafetensorsFile& file, const char* name) {
  const auto place = file.metadata().find(name);
  int64_t value = -1;
  if (place != file.metadata().end())
    std::from_chars(place->second.data(), place->second.data() + place->second.size(), value);
  if (value < 0)
    return fail("{}: the metadata has no {}: this is no state of a training run", file.path().string(), name);
  return value;
}

}  // namespace

Status save_state(const std::filesystem::path& file, const RunPosition& position, const Parameters& parameters,
                  AdamW& optimizer) {
  return write_entries(file, entries(parameters, &optimizer),
                       {{"stage", position.stage},
                        {"step", std::to_string(position.step)},
                        {"optimizer_steps", std::to_string(optimizer.steps())}});
}

Result<RunPosition> load_state(const std::filesystem::path& path, Parameters& parameters, AdamW& optimizer) {
  FATHOM_TRY(const SafetensorsFile file, read_entries(path, entries(parameters, &optimizer)));
  RunPosition position;
  FATHOM_TRY(position.step, number(file, "step"));
  FATHOM_TRY(const int64_t steps, number(file, "optimizer_steps"));
  optimizer.set_steps(steps);
  if (const auto place = file.metadata().find("stage"); place != file.metadata().end()) position.stage = place->second;
  return position;
}

Status save_parameters(const std::filesystem::path& file, const Parameters& parameters) {
  return write_entries(file, entries(parameters, nullptr), {{"format", "pt"}});
}

Status load_parameters(const std::filesystem::path& file, Parameters& parameters) {
  FATHOM_TRY([[maybe_unused]] const SafetensorsFile read, read_entries(file, entries(parameters, nullptr)));
  return {};
}

}  // namespace fathom::train
