#include "base/line_file.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file.h"

namespace fathom {

namespace {

constexpr size_t kMaxFileBytes = size_t{16} << 30;

}  // namespace

Result<LineFile> LineFile::create(const std::filesystem::path& path, mode_t mode) {
  FileDescriptor file(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!file && errno == EEXIST)
    return fail("{}: is there already: go on with it (--resume), or choose another name", path.string());
  if (!file) return fail("{}: cannot be written: {}", path.string(), std::strerror(errno));
  return LineFile(std::move(file), path);
}

Result<LineFile> LineFile::open(const std::filesystem::path& path) {
  FATHOM_TRY(const std::string text, read_file(path, kMaxFileBytes));
  FileDescriptor file(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  if (!file) return fail("{}: cannot be written: {}", path.string(), std::strerror(errno));
  LineFile out(std::move(file), path);
  std::string_view rest = text;
  for (size_t end = 0; (end = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(end + 1))
    out.lines_.emplace_back(rest.substr(0, end));
  out.whole_bytes_ = static_cast<int64_t>(text.size() - rest.size());
  out.cut_ = !rest.empty();
  return out;
}

Status LineFile::append(std::string_view line) {
  const auto failed = [&](std::string_view what) -> Status {
    return fail("{}: {}: {}; the lines before are safe, and --resume goes on from them", path_.string(), what,
                std::strerror(errno));
  };
  if (cut_ && ftruncate(file_.get(), whole_bytes_) != 0) return failed("cannot be shortened to its last whole line");
  cut_ = true;  // until all of it is written
  std::string text(line);
  text += '\n';
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t written = ::write(file_.get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("cannot be written");
    rest.remove_prefix(static_cast<size_t>(written));
  }
  if (fdatasync(file_.get()) != 0 && errno != EINVAL)  // a pipe has no disk to be on
    return failed("cannot be written");
  whole_bytes_ += static_cast<int64_t>(text.size());
  cut_ = false;
  return {};
}

}  // namespace fathom
