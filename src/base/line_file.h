// Results on disk as they come, a line each: what an interrupted run is continued from.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_descriptor.h"
#include "base/result.h"

namespace fathom {

// Append-only. A line is on disk before `append` returns, in one write; a crash cuts at most the last one. Move-only, not
// thread-safe.
class LineFile {
 public:
  // A new file. Fails where there is one of that name. mode: its permissions, less what the process's umask takes.
  static Result<LineFile> create(const std::filesystem::path& path, mode_t mode = 0666);
  // Goes on with one that is there, which stays as it is until the first append.
  static Result<LineFile> open(const std::filesystem::path& path);

  // Its whole lines, without their ends. What follows the last is left out: a line that a crash cut.
  const std::vector<std::string>& lines() const { return lines_; }
  // line: without a line feed. Drops a cut line first.
  Status append(std::string_view line);
  const std::filesystem::path& path() const { return path_; }

 private:
  LineFile(FileDescriptor file, std::filesystem::path path) : file_(std::move(file)), path_(std::move(path)) {}

  FileDescriptor file_;
  std::filesystem::path path_;
  std::vector<std::string> lines_;
  int64_t whole_bytes_ = 0;
  bool cut_ = false;  // something follows the last whole line
};

}  // namespace fathom
