// Reading small files whole and writing files atomically.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fathom {

// The whole file as a string; refuses files over `max_bytes` (a config or a tokenizer is never gigabytes).
Result<std::string> read_file(const std::filesystem::path& path, size_t max_bytes = size_t{256} << 20);

// Writes to a temporary name in the same folder and renames on `commit`. Without a commit (error, exception, early
// return) the temporary file is removed and an older file of that name stays as it was.
class AtomicFile {
 public:
  // mode: its permissions, less what the process's umask takes.
  static Result<AtomicFile> create(const std::filesystem::path& path, mode_t mode = 0666);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;

  Status write(std::span<const std::byte> bytes);
  Status write(std::string_view text) { return write(std::as_bytes(std::span(text))); }
  Status write_at(uint64_t offset, std::span<const std::byte> bytes);
  // Flushes to disk, then renames.
  Status commit();

 private:
  AtomicFile() = default;
  int fd_ = -1;
  std::filesystem::path path_, temporary_;
};

// create + write + commit.
Status write_file_atomically(const std::filesystem::path& path, std::string_view text, mode_t mode = 0666);

}  // namespace fathom
