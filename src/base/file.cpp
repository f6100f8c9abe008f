#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace fathom {

Result<std::string> read_file(const std::filesystem::path& path, size_t max_bytes) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail("{}: cannot open: {}", path.string(), std::strerror(errno));
  std::string text;
  char block[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      close(fd);
      return fail("{}: cannot read: {}", path.string(), std::strerror(error));
    }
    if (n == 0) break;
    text.append(block, static_cast<size_t>(n));
    if (text.size() > max_bytes) {
      close(fd);
      return fail("{}: larger than the {} bytes that such a file may have", path.string(), max_bytes);
    }
  }
  close(fd);
  return text;
}

namespace {

// It can only be read by setting it, which other threads would see: once.
mode_t process_umask() {
  static const mode_t mask = [] {
    const mode_t before = umask(077);
    umask(before);
    return before;
  }();
  return mask;
}

}  // namespace

Result<AtomicFile> AtomicFile::create(const std::filesystem::path& path, mode_t mode) {
  AtomicFile file;
  file.path_ = path;
  std::string name = path.string() + ".tmp-XXXXXX";
  file.fd_ = mkostemp(name.data(), O_CLOEXEC);
  if (file.fd_ < 0) return fail("{}: cannot create: {}", path.string(), std::strerror(errno));
  file.temporary_ = name;
  // mkostemp makes the file private; give it the permissions that a plain open would.
  fchmod(file.fd_, mode & ~process_umask());
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)), temporary_(std::move(other.temporary_)) {}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail("{}: cannot write: {}", path_.string(), std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

Status AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail("{}: cannot write: {}", path_.string(), std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

Status AtomicFile::commit() {
  if (fsync(fd_) != 0) return fail("{}: cannot write: {}", path_.string(), std::strerror(errno));
  const int closed = close(std::exchange(fd_, -1));
  if (closed != 0 || rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    unlink(temporary_.c_str());
    return fail("{}: cannot write: {}", path_.string(), std::strerror(error));
  }
  return {};
}

Status write_file_atomically(const std::filesystem::path& path, std::string_view text, mode_t mode) {
  FATHOM_TRY(auto file, AtomicFile::create(path, mode));
  FATHOM_RETURN_IF_ERROR(file.write(text));
  return file.commit();
}

}  // namespace fathom
