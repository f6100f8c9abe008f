#include "engine/identity.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/memory.h"

namespace fathom {

namespace {

constexpr size_t kHead = size_t{1} << 20, kSample = 4096, kSamples = 64;

std::string hex(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

Result<std::string> hash_of_samples(const std::filesystem::path& path) {
  FATHOM_TRY(const MappedFile file, MappedFile::open(path));
  const std::span<const std::byte> bytes = file.bytes();
  std::vector<std::byte> taken(bytes.begin(),
                               bytes.begin() + static_cast<std::ptrdiff_t>(std::min(kHead, bytes.size())));
  if (bytes.size() > kHead + kSamples * kSample) {
    const size_t stride = (bytes.size() - kSample) / kSamples;
    for (size_t i = 1; i <= kSamples; ++i) {
      const auto sample = bytes.subspan(i * stride, kSample);
      taken.insert(taken.end(), sample.begin(), sample.end());
    }
  } else {
    taken.assign(bytes.begin(), bytes.end());
  }
  // The time tells of a change in place that no sample hits; a copy with another time begins with an empty cache.
  std::error_code error;
  const auto changed = std::filesystem::last_write_time(path, error);
  if (error) return fail("{}: {}", path.string(), error.message());
  return fmt::format("{} bytes {} of {}", bytes.size(), hex(XXH3_128bits(taken.data(), taken.size())),
                     changed.time_since_epoch().count());
}

}  // namespace

Result<std::string> cache_identity(const Engine& engine) {
  FATHOM_TRY(const MappedFile program, MappedFile::open("/proc/self/exe"));
  const EngineSettings& s = engine.settings();
  std::string text =
      fmt::format("program {}\nisa {} numerics {} latent {} reproducible {} dense {}\n",
                  hex(XXH3_128bits(program.bytes().data(), program.bytes().size())), isa_name(engine.isa()),
                  static_cast<int>(s.numerics), static_cast<int>(s.latent_format), s.reproducible, s.dense_attention);
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(engine.store().folder(), error))
    if (entry.path().extension() == ".safetensors" || entry.path().filename() == "config.json")
      files.push_back(entry.path());
  if (error) return fail("{}: cannot be listed: {}", engine.store().folder().string(), error.message());
  std::ranges::sort(files);
  for (const std::filesystem::path& file : files) {
    FATHOM_TRY(const std::string hash, hash_of_samples(file));
    text += fmt::format("{} {}\n", file.filename().string(), hash);
  }
  return text;
}

}  // namespace fathom
