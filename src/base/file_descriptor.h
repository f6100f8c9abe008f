// Owner of a POSIX file descriptor: move-only, closes it.
#pragma once

#include <unistd.h>

#include <utility>

namespace fathom {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  // Takes over `fd`; a negative one, as a failed ::open returns it, is nothing to own.
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

}  // namespace fathom
