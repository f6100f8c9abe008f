#include "checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>

#include "checkpoint/json_text.h"
#include "checkpoint/problems.h"

namespace fathom {

static_assert(std::endian::native == std::endian::little, "tensors are used in place: little-endian machines only");

namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxRank = 32;                    // no limit in the format; bounds what a hostile header may cost
constexpr size_t kMaxMetadata = 65'536;            // likewise
constexpr uint64_t kMaxSize = std::numeric_limits<int64_t>::max();
constexpr std::string_view kMetadataKey = "__metadata__";

// Bytes of a tensor, or nothing when the product exceeds 63 bits.
std::optional<uint64_t> tensor_bytes(DType dtype, std::span<const int64_t> shape) {
  int64_t bytes = 1;
  for (const int64_t dim : shape)
    if (dim < 0 || __builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
  if (__builtin_mul_overflow(bytes, static_cast<int64_t>(dtype_size_bytes(dtype)), &bytes)) return std::nullopt;
  return static_cast<uint64_t>(bytes);
}

struct Declared {
  TensorEntry entry;
  uint64_t begin = 0, end = 0;
};

// { "__metadata__": {string: string}, name: {"dtype": string, "shape": [n...], "data_offsets": [begin, end]}, ... }
class HeaderHandler : public JsonHandler {
 public:
  std::vector<Declared> tensors;
  std::map<std::string, std::string> metadata;

  bool start_object(size_t) override {
    if (state_ == State::kStart) return go(State::kTop);
    if (state_ == State::kTensorStart) return go(State::kTensor);
    if (state_ == State::kMetadataStart) return go(State::kMetadata);
    return unexpected("an object");
  }

  bool key(string_t& name) override {
    if (state_ == State::kTop && name == kMetadataKey) {
      if (has_metadata_) return refuse("\"__metadata__\" appears twice");
      has_metadata_ = true;
      return go(State::kMetadataStart);
    }
    if (state_ == State::kTop) {
      tensors.emplace_back().entry.name = std::move(name);
      offsets_.clear();
      fields_ = 0;
      return go(State::kTensorStart);
    }
    if (state_ == State::kMetadata) {
      if (metadata.size() >= kMaxMetadata)
        return refuse(fmt::format("\"__metadata__\" has more than {} entries", kMaxMetadata));
      const auto [place, fresh] = metadata.try_emplace(std::move(name));
      if (!fresh) return refuse(fmt::format("\"__metadata__\": the key {} appears twice", in_quotes(place->first)));
      metadata_value_ = &place->second;
      return go(State::kMetadataValue);
    }
    if (name == "dtype") return field(kDtypeField, "dtype", State::kDtype);
    if (name == "shape") return field(kShapeField, "shape", State::kShapeStart);
    if (name == "data_offsets") return field(kOffsetsField, "data_offsets", State::kOffsetsStart);
    return unexpected(fmt::format("the key {}", in_quotes(name)));
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadataValue) {
      *metadata_value_ = std::move(value);
      return go(State::kMetadata);
    }
    if (state_ != State::kDtype) return unexpected(in_quotes(value));
    const auto dtype = dtype_from_name(value);
    if (!dtype)
      return refuse(fmt::format("tensor {}: unknown dtype {}", in_quotes(current().entry.name), in_quotes(value)));
    current().entry.dtype = *dtype;
    return go(State::kTensor);
  }

  bool start_array(size_t) override {
    if (state_ == State::kShapeStart) return go(State::kShape);
    if (state_ == State::kOffsetsStart) return go(State::kOffsets);
    return unexpected("an array");
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape && value <= kMaxSize) {
      if (current().entry.shape.size() >= kMaxRank)
        return refuse(fmt::format("tensor {}: more than {} dimensions", in_quotes(current().entry.name), kMaxRank));
      current().entry.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (state_ == State::kOffsets && offsets_.size() < 2) {
      offsets_.push_back(value);
      return true;
    }
    return unexpected(std::to_string(value));
  }

  bool end_array() override {
    if (state_ == State::kShape) return go(State::kTensor);
    if (state_ != State::kOffsets || offsets_.size() != 2) return unexpected("the end of an array");
    current().begin = offsets_[0];
    current().end = offsets_[1];
    return go(State::kTensor);
  }

  bool end_object() override {
    if (state_ == State::kTensor) {
      constexpr unsigned kAll = kDtypeField | kShapeField | kOffsetsField;
      if (fields_ == kAll) return go(State::kTop);
      const char* missing = !(fields_ & kDtypeField) ? "dtype" : !(fields_ & kShapeField) ? "shape" : "data_offsets";
      return refuse(fmt::format("tensor {}: no \"{}\"", in_quotes(current().entry.name), missing));
    }
    if (state_ == State::kMetadata) return go(State::kTop);
    return go(State::kEnd);
  }

 protected:
  std::string expected() const override {
    const std::string tensor =
        tensors.empty() ? "" : fmt::format(" for tensor {}", in_quotes(tensors.back().entry.name));
    switch (state_) {
      case State::kStart:
        return "an object";
      case State::kTop:
        return "a tensor name";
      case State::kTensorStart:
        return "an object" + tensor;
      case State::kTensor:
        return "dtype, shape or data_offsets" + tensor;
      case State::kDtype:
        return "a dtype name" + tensor;
      case State::kShapeStart:
      case State::kShape:
        return "a shape of whole numbers ≥ 0" + tensor;
      case State::kOffsetsStart:
      case State::kOffsets:
        return "two byte offsets" + tensor;
      case State::kMetadataStart:
        return "an object for \"__metadata__\"";
      case State::kMetadata:
      case State::kMetadataValue:
        return "a string in \"__metadata__\"";
      case State::kEnd:
        break;
    }
    return "the end of the header";
  }

 private:
  enum class State {
    kStart,
    kTop,
    kTensorStart,
    kTensor,
    kDtype,
    kShapeStart,
    kShape,
    kOffsetsStart,
    kOffsets,
    kMetadataStart,
    kMetadata,
    kMetadataValue,
    kEnd
  };
  static constexpr unsigned kDtypeField = 1, kShapeField = 2, kOffsetsField = 4;

  Declared& current() { return tensors.back(); }
  bool go(State next) {
    state_ = next;
    return true;
  }
  bool field(unsigned bit, const char* name, State next) {
    if (fields_ & bit)
      return refuse(fmt::format("tensor {}: \"{}\" appears twice", in_quotes(current().entry.name), name));
    fields_ |= bit;
    return go(next);
  }

  State state_ = State::kStart;
  unsigned fields_ = 0;  // of the current tensor
  bool has_metadata_ = false;
  std::vector<uint64_t> offsets_;
  std::string* metadata_value_ = nullptr;
};

// The JSON text of a file's header, bounds checked.
Result<std::string_view> header_text(std::span<const std::byte> bytes, std::string_view source) {
  if (bytes.size() < kLengthBytes)
    return fail("{}: found {} bytes, expected at least 8: not a safetensors file, or cut short", source, bytes.size());
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes)
    return fail("{}: the header length is {}, expected at most {}: not a safetensors file", source, length,
                kMaxHeaderBytes);
  if (length > bytes.size() - kLengthBytes)
    return fail("{}: the header takes {} bytes but only {} follow: the file is cut short, fetch it again", source,
                length, bytes.size() - kLengthBytes);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  if (text.empty() || text.front() != '{')
    return fail("{}: the header does not begin with '{{': not a safetensors file", source);
  return text;
}

// Sorted by offset, the tensors must cover [0, data_bytes) exactly. Empty ones lie between their neighbours.
Status check_tiling(const std::vector<Declared>& sorted, uint64_t data_bytes, std::string_view source) {
  uint64_t covered = 0;
  for (const auto& [entry, begin, end] : sorted) {
    const auto size = tensor_bytes(entry.dtype, entry.shape);
    if (!size)
      return fail("{}: tensor {}: shape {} is larger than any file", source, in_quotes(entry.name),
                  shape_text(entry.shape));
    if (begin > end || end - begin != *size)
      return fail("{}: tensor {}: data_offsets [{}, {}] do not hold {} {}, which takes {} bytes", source,
                  in_quotes(entry.name), begin, end, dtype_name(entry.dtype), shape_text(entry.shape), *size);
    if (begin != covered)
      return fail("{}: tensor {} begins at byte {} of the data, expected {}: {}", source, in_quotes(entry.name), begin,
                  covered, begin > covered ? "there is a hole before it" : "it overlaps the tensor before it");
    if (end > data_bytes)
      return fail(
          "{}: tensor {} ends at byte {} of the data, but the file has only {}: it is cut short, fetch it again",
          source, in_quotes(entry.name), end, data_bytes);
    covered = end;
  }
  if (covered != data_bytes)
    return fail("{}: the file has {} bytes of data, its tensors only {}: unexpected bytes at the end", source,
                data_bytes, covered);
  return {};
}

}  // namespace

int64_t TensorEntry::count() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string shape_text(std::span<const int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  FATHOM_TRY(auto mapped, MappedFile::open(path));
  FATHOM_TRY(auto file, parse(mapped.bytes(), path.string()));
  file.file_ = std::move(mapped);  // the mapping does not move with its owner
  file.path_ = path;
  return file;
}

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> bytes, std::string_view source) {
  FATHOM_TRY(const auto text, header_text(bytes, source));
  HeaderHandler header;
  if (const auto read = read_json(text, header); !read) return fail("{}: header: {}", source, read.error().message);

  const auto by_offset = [](const Declared& a, const Declared& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  };
  if (!std::is_sorted(header.tensors.begin(), header.tensors.end(), by_offset))
    std::stable_sort(header.tensors.begin(), header.tensors.end(), by_offset);
  const auto data = bytes.subspan(kLengthBytes + text.size());
  FATHOM_RETURN_IF_ERROR(check_tiling(header.tensors, data.size(), source));

  SafetensorsFile file;
  file.metadata_ = std::move(header.metadata);
  file.tensors_.reserve(header.tensors.size());
  for (auto& [entry, begin, end] : header.tensors) {
    entry.bytes = data.subspan(begin, end - begin);
    file.tensors_.push_back(std::move(entry));
  }
  file.by_name_.resize(file.tensors_.size());
  std::iota(file.by_name_.begin(), file.by_name_.end(), uint32_t{0});
  const auto name = [&](uint32_t i) -> const std::string& { return file.tensors_[i].name; };
  std::sort(file.by_name_.begin(), file.by_name_.end(), [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
  const auto twice = std::adjacent_find(file.by_name_.begin(), file.by_name_.end(),
                                        [&](uint32_t a, uint32_t b) { return name(a) == name(b); });
  if (twice != file.by_name_.end()) return fail("{}: tensor {} appears twice", source, in_quotes(name(*twice)));
  return file;
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  const auto place = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                      [&](uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  if (place == by_name_.end() || tensors_[*place].name != name) return nullptr;
  return &tensors_[*place];
}

Result<SafetensorsWriter> SafetensorsWriter::create(const std::filesystem::path& path, std::vector<Declaration> tensors,
                                                    const std::map<std::string, std::string>& metadata) {
  std::vector<std::string_view> names;
  for (const auto& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    return fail("{}: tensor {} is declared twice", path.string(), in_quotes(*twice));

  std::string text = "{";
  uint64_t offset = 0;
  try {  // the library throws for names that are not UTF-8
    if (!metadata.empty()) text += fmt::format("\"{}\":{},", kMetadataKey, nlohmann::json(metadata).dump());
    for (const auto& [name, dtype, shape] : tensors) {
      const auto size = tensor_bytes(dtype, shape);
      if (!size || name == kMetadataKey || *size > kMaxSize - offset)
        return fail("{}: tensor {} with shape {} cannot be written", path.string(), in_quotes(name), shape_text(shape));
      text +=
          fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}},", nlohmann::json(name).dump(),
                      dtype_name(dtype), fmt::join(shape, ","), offset, offset + *size);
      offset += *size;
    }
  } catch (const nlohmann::json::exception&) {
    return fail("{}: a tensor name or metadata entry is not valid UTF-8", path.string());
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');  // the data then begin 8-byte aligned
  if (text.size() > kMaxHeaderBytes)
    return fail("{}: {} tensors need a header of {} bytes, over the format's {}: split them over several files",
                path.string(), tensors.size(), text.size(), kMaxHeaderBytes);

  FATHOM_TRY(auto file, AtomicFile::create(path));
  const uint64_t length = text.size();
  FATHOM_RETURN_IF_ERROR(file.write(std::as_bytes(std::span(&length, 1))));
  FATHOM_RETURN_IF_ERROR(file.write(text));
  SafetensorsWriter writer(std::move(file));
  writer.path_ = path;
  writer.expected_bytes_ = offset;
  return writer;
}

Status SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (bytes.size() > expected_bytes_ - written_bytes_)
    return fail("{}: more bytes written than the {} declared", path_.string(), expected_bytes_);
  FATHOM_RETURN_IF_ERROR(file_.write(bytes));
  written_bytes_ += bytes.size();
  return {};
}

Status SafetensorsWriter::finish() {
  if (written_bytes_ != expected_bytes_)
    return fail("{}: {} bytes written, {} declared", path_.string(), written_bytes_, expected_bytes_);
  return file_.commit();
}

}  // namespace fathom
