// Blocks with known contents in a BlockStore, and its files as they lie on disk.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/block_store.h"
#include "support/random.h"

namespace fathom::stored {

using Bytes = std::vector<std::byte>;
inline constexpr int64_t kUnit = 4096;  // what a small block counts for

inline BlockKey key(int64_t i) { return root_key("block " + std::to_string(i)); }

// What block `i` holds: of a size and with contents that only it has.
inline size_t size_of(int64_t i) { return static_cast<size_t>(200 + 37 * i % 3000); }
inline Bytes content(int64_t i, size_t size) {
  TestRandom random(static_cast<uint64_t>(i) + 1);
  Bytes bytes(size);
  size_t at = 0;
  for (; at + 8 <= size; at += 8) {
    const uint64_t bits = random.bits();
    std::memcpy(bytes.data() + at, &bits, 8);
  }
  for (; at < size; ++at) bytes[at] = static_cast<std::byte>(random.bits());
  return bytes;
}
inline Bytes content(int64_t i) { return content(i, size_of(i)); }

inline std::unique_ptr<BlockStore> open_store(const std::filesystem::path& folder, int64_t capacity = 1 << 20,
                                              int64_t queue = 64 << 20) {
  auto store = BlockStore::open({.folder = folder, .capacity_bytes = capacity, .queue_bytes = queue});
  if (!store) {
    ADD_FAILURE() << store.error().message;
    return nullptr;
  }
  return *std::move(store);
}

enum class Found { kMiss, kRight, kWrong };

inline Found ask(BlockStore& store, int64_t i, size_t size) {
  Bytes out(size);
  if (!store.get(key(i), out)) return Found::kMiss;
  return out == content(i, size) ? Found::kRight : Found::kWrong;
}
inline Found ask(BlockStore& store, int64_t i) { return ask(store, i, size_of(i)); }

// The file of a block, by the layout that the header describes.
inline std::filesystem::path file_of(const std::filesystem::path& folder, int64_t i) {
  char name[64];
  const BlockKey k = key(i);
  std::snprintf(name, sizeof name, "%02x/%016llx%016llx.block", static_cast<unsigned>(k.words[0] >> 56),
                static_cast<unsigned long long>(k.words[0]), static_cast<unsigned long long>(k.words[1]));
  return folder / "fathom-blocks-1" / name;
}

inline std::vector<std::filesystem::path> block_files(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder / "fathom-blocks-1"))
    if (entry.is_regular_file()) files.push_back(entry.path());
  return files;
}

inline int64_t disk_bytes(const std::filesystem::path& folder) {
  int64_t bytes = 0;
  for (const std::filesystem::path& file : block_files(folder))
    bytes += (static_cast<int64_t>(std::filesystem::file_size(file)) + kUnit - 1) / kUnit * kUnit;
  return bytes;
}

inline std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}
inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace fathom::stored
