#include "engine/block_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#define XXH_INLINE_ALL  // the state of a hash on the stack
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/file.h"

namespace fathom {

namespace {

static_assert(std::endian::native == std::endian::little, "headers are used as they lie on disk: little-endian only");

constexpr uint32_t kStoreFormat = 1;  // of header and names; raised when either changes its meaning
constexpr std::string_view kFormatFolder = "fathom-blocks-";
constexpr const char* kTemporary = "new";  // one is enough: one thread of one process writes
constexpr std::string_view kSuffix = ".block";
constexpr int64_t kMaxBytes = int64_t{1} << 60;  // sums of two stay far from overflow
constexpr int64_t kDiskUnit = 4096;              // what file systems give out
// Read and checksummed by turns, so that the checksum finds the bytes still in the second-level cache.
constexpr size_t kSlice = size_t{256} << 10;

// In front of every block's content.
struct Header {
  std::array<char, 8> magic{'f', 'a', 't', 'h', 'o', 'm', 'K', 'V'};
  uint32_t format = kStoreFormat;
  uint32_t reserved0 = 0;
  std::array<uint64_t, 2> key;
  uint64_t size = 0;  // of the content
  uint64_t reserved1 = 0;
  std::array<uint64_t, 2> checksum{};  // of the header up to here, then the content

  friend bool operator==(const Header&, const Header&) = default;
};
static_assert(sizeof(Header) == 64 && offsetof(Header, checksum) == 48);

class Checksum {
 public:
  explicit Checksum(const Header& header) {
    XXH3_128bits_reset(&state_);
    XXH3_128bits_update(&state_, &header, offsetof(Header, checksum));
  }
  void add(std::span<const std::byte> bytes) { XXH3_128bits_update(&state_, bytes.data(), bytes.size()); }
  std::array<uint64_t, 2> value() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(&state_);
    return {hash.low64, hash.high64};
  }

 private:
  XXH3_state_t state_;
};

template <typename Byte>
int64_t size_of(std::span<const std::span<Byte>> pieces) {
  int64_t size = 0;
  for (const auto& piece : pieces) size += static_cast<int64_t>(piece.size());
  return size;
}

int64_t on_disk(int64_t content_bytes) {
  const int64_t bytes = content_bytes + static_cast<int64_t>(sizeof(Header));
  return (bytes + kDiskUnit - 1) / kDiskUnit * kDiskUnit;
}

// KK/KEY.block
std::string name_of(const BlockKey& key) {
  return fmt::format("{:02x}/{:016x}{:016x}{}", key.words[0] >> 56, key.words[0], key.words[1], kSuffix);
}

// None when that is no name of a block in folder KK.
std::optional<BlockKey> key_of(std::string_view folder, std::string_view name) {
  if (name.size() != 32 + kSuffix.size()) return std::nullopt;
  BlockKey key;
  std::from_chars(name.data(), name.data() + 16, key.words[0], 16);
  std::from_chars(name.data() + 16, name.data() + 32, key.words[1], 16);
  // The way back refuses all that from_chars lets through.
  if (name_of(key) != fmt::format("{}/{}", folder, name)) return std::nullopt;
  return key;
}

// A file, or an empty folder that stands in its place. 0, or errno; nothing there is fine.
int remove_at(const FileDescriptor& folder, const std::string& name) {
  if (unlinkat(folder.get(), name.c_str(), 0) == 0 || errno == ENOENT) return 0;
  if (errno == EISDIR && unlinkat(folder.get(), name.c_str(), AT_REMOVEDIR) == 0) return 0;
  return errno;
}

// The names in a folder; `error` is 0 or errno.
std::vector<std::string> names_in(const FileDescriptor& parent, const std::string& folder, int& error) {
  std::vector<std::string> names;
  error = 0;
  const int fd = openat(parent.get(), folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR* stream = fd < 0 ? nullptr : fdopendir(fd);
  if (!stream) {
    error = errno;
    if (fd >= 0) ::close(fd);
    return names;
  }
  errno = 0;
  while (const dirent* entry = readdir(stream)) names.emplace_back(entry->d_name);
  error = errno;
  closedir(stream);
  return names;
}

bool write_all(const FileDescriptor& file, const void* data, size_t size) {
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::write(file.get(), next, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    next += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

// 0, errno, or −1 at the end of the file.
int read_all(const FileDescriptor& file, void* data, size_t size, int64_t offset) {
  char* next = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = ::pread(file.get(), next, size, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : -1;
    next += n;
    offset += n;
    size -= static_cast<size_t>(n);
  }
  return 0;
}

constexpr int64_t kSecond = 1'000'000'000;

int64_t modified_at(const struct stat& status) {
  // Far dates, which no clock writes, must not overflow.
  const int64_t seconds = std::clamp<int64_t>(status.st_mtim.tv_sec, 0, int64_t{1} << 33);
  return seconds * kSecond + status.st_mtim.tv_nsec;
}

// Without effect where the file is another user's; recency then lasts as long as the process.
std::array<timespec, 2> times_of(int64_t stamp) {
  return {{{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, {.tv_sec = stamp / kSecond, .tv_nsec = stamp % kSecond}}};
}
void set_modified(const FileDescriptor& file, int64_t stamp) { futimens(file.get(), times_of(stamp).data()); }
void set_modified_at(const FileDescriptor& folder, const std::string& name, int64_t stamp) {
  utimensat(folder.get(), name.c_str(), times_of(stamp).data(), AT_SYMLINK_NOFOLLOW);
}

}  // namespace

Result<std::unique_ptr<BlockStore>> BlockStore::open(const BlockStoreSettings& settings) {
  if (settings.capacity_bytes <= 0 || settings.capacity_bytes > kMaxBytes || settings.queue_bytes <= 0 ||
      settings.queue_bytes > kMaxBytes)
    return fail("{}: a cache of {} bytes with a queue of {}: both must be at least 1 and at most 2^60",
                settings.folder.string(), settings.capacity_bytes, settings.queue_bytes);
  std::unique_ptr<BlockStore> store(new BlockStore(settings));
  FATHOM_RETURN_IF_ERROR(store->lock_folder());
  FATHOM_RETURN_IF_ERROR(store->scan());
  store->writer_ = std::thread([s = store.get()] { s->write_queue(); });
  return store;
}

BlockStore::~BlockStore() {
  if (!writer_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_one();
  writer_.join();
}

Status BlockStore::lock_folder() {
  const std::string folder = settings_.folder.string();
  std::error_code error;
  std::filesystem::create_directories(settings_.folder, error);
  if (error) return fail("{}: cannot make the cache's folder: {}; name another one", folder, error.message());
  const std::filesystem::path path = settings_.folder / "lock";
  lock_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  if (!lock_)
    return fail("{}: cannot open the cache's lock: {}; name another folder", path.string(), std::strerror(errno));
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    if (reason != EWOULDBLOCK)
      return fail("{}: cannot be locked: {}; name another folder", path.string(), std::strerror(reason));
    int64_t process = 0;
    if (const auto text = read_file(path, 64)) std::from_chars(text->data(), text->data() + text->size(), process);
    return fail("{}: this cache is in use by {}; name a folder of its own for each process", folder,
                process > 0 ? fmt::format("process {}", process) : "another process");
  }
  // For the message above. A lock without it locks as well.
  const std::string process = fmt::format("{}\n", getpid());
  if (ftruncate(lock_.get(), 0) != 0 || !write_all(lock_, process.data(), process.size()))
    return fail("{}: cannot write: {}; name another folder", path.string(), std::strerror(errno));
  return {};
}

Status BlockStore::scan() {
  const std::string own = fmt::format("{}{}", kFormatFolder, kStoreFormat);
  const std::filesystem::path path = settings_.folder / own;
  FileDescriptor parent(::open(settings_.folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent && (mkdirat(parent.get(), own.c_str(), 0700) == 0 || errno == EEXIST))
    folder_ = FileDescriptor(openat(parent.get(), own.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder_) return fail("{}: cannot open the cache: {}; name another folder", path.string(), std::strerror(errno));

  int error = 0;
  for (const std::string& name : names_in(parent, ".", error)) {
    const bool other_format = name.starts_with(kFormatFolder) && name != own && name.size() > kFormatFolder.size() &&
                              name.find_first_not_of("0123456789", kFormatFolder.size()) == std::string::npos;
    std::error_code failure;
    if (other_format) std::filesystem::remove_all(settings_.folder / name, failure);
    if (failure) note_error(fmt::format("{}: cannot remove blocks of another format: {}", name, failure.message()));
  }
  if (error)
    return fail("{}: cannot read the folder: {}; name another one", settings_.folder.string(), std::strerror(error));
  if (const int failed = remove_at(folder_, kTemporary))
    return fail("{}: cannot remove what an interrupted run left: {}; remove it", (path / kTemporary).string(),
                std::strerror(failed));

  const auto remove = [&](const std::string& name) {
    if (const int failed = remove_at(folder_, name))
      note_error(fmt::format("{}: cannot remove: {}", (path / name).string(), std::strerror(failed)));
  };
  struct Found {
    int64_t stamp;
    BlockKey key;
    int64_t disk_bytes;
    auto operator<=>(const Found&) const = default;
  };
  std::vector<Found> found;
  for (int first = 0; first < 256; ++first) {
    const std::string folder = fmt::format("{:02x}", first);
    for (const std::string& file : names_in(folder_, folder, error)) {
      const std::optional<BlockKey> key = key_of(folder, file);
      if (!key) continue;
      const std::string name = name_of(*key);
      struct stat status {};
      if (fstatat(folder_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        note_error(fmt::format("{}: cannot read: {}", (path / name).string(), std::strerror(errno)));
        continue;
      }
      if (!S_ISREG(status.st_mode) || status.st_size < static_cast<int64_t>(sizeof(Header))) {
        ++stats_.damaged;
        remove(name);
        continue;
      }
      found.push_back({modified_at(status), *key,
                       on_disk(std::min(status.st_size - static_cast<int64_t>(sizeof(Header)), kMaxBytes))});
    }
    if (error && error != ENOENT)
      note_error(fmt::format("{}: cannot read the folder: {}", (path / folder).string(), std::strerror(error)));
  }
  std::sort(found.begin(), found.end());

  // The newest that fit together stay.
  size_t kept = found.size();
  for (int64_t bytes = 0; kept > 0; --kept) {
    bytes += found[kept - 1].disk_bytes;
    if (bytes > settings_.capacity_bytes) break;
  }
  for (size_t i = 0; i < kept; ++i) remove(name_of(found[i].key));
  stats_.evicted += static_cast<int64_t>(kept);
  for (size_t i = kept; i < found.size(); ++i) add_newest(found[i].key, found[i].disk_bytes);
  if (!found.empty()) last_stamp_ = found.back().stamp;
  return {};
}

int64_t BlockStore::most_blocks(int64_t content_bytes) const {
  return settings_.capacity_bytes / on_disk(content_bytes);
}

bool BlockStore::contains(const BlockKey& key) const {
  const std::lock_guard lock(mutex_);
  return places_.contains(key) || waiting_.contains(key);
}

bool BlockStore::put(const BlockKey& key, std::span<const std::span<const std::byte>> pieces) {
  const int64_t size = size_of(pieces);
  {
    const std::lock_guard lock(mutex_);
    if (places_.contains(key) || waiting_.contains(key)) return false;
    if (stats_.queued_bytes + size > settings_.queue_bytes || on_disk(size) > settings_.capacity_bytes) {
      ++stats_.dropped;
      return false;
    }
    stats_.queued_bytes += size;
  }
  auto content = std::make_shared<std::vector<std::byte>>();
  content->reserve(static_cast<size_t>(size));
  for (const auto& piece : pieces) content->insert(content->end(), piece.begin(), piece.end());
  {
    const std::lock_guard lock(mutex_);
    if (places_.contains(key) || !waiting_.emplace(key, std::move(content)).second) {  // another thread was faster
      stats_.queued_bytes -= size;
      return false;
    }
    queue_.push_back(key);
  }
  work_.notify_one();
  return true;
}

bool BlockStore::get(const BlockKey& key, std::span<const std::span<std::byte>> pieces) {
  std::unique_lock lock(mutex_);
  if (const auto waiting = waiting_.find(key); waiting != waiting_.end()) {
    const Content content = waiting->second;
    ++stats_.hits;
    lock.unlock();
    FATHOM_CHECK(size_of(pieces) == static_cast<int64_t>(content->size()), "put {} bytes, get {}", content->size(),
                 size_of(pieces));
    const std::byte* next = content->data();
    for (const auto& piece : pieces) {
      std::copy_n(next, piece.size(), piece.data());
      next += piece.size();
    }
    return true;
  }
  const auto before = places_.find(key);
  if (before == places_.end()) {
    ++stats_.misses;
    return false;
  }
  const uint64_t generation = before->second->generation;
  lock.unlock();

  const std::string name = name_of(key);
  // A block is a plain file: no link is followed, no pipe waited for.
  const FileDescriptor file(openat(folder_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  int error = file ? 0 : errno;
  const bool whole = file && read_block(file, key, pieces, error);

  lock.lock();
  const auto place = places_.find(key);
  const bool same = place != places_.end() && place->second->generation == generation;
  if (whole) {
    ++stats_.hits;
    if (!same) return true;  // evicted meanwhile; the bytes are right all the same
    blocks_.splice(blocks_.end(), blocks_, place->second);
    const int64_t stamp = next_stamp();
    lock.unlock();
    set_modified(file, stamp);
    return true;
  }
  ++stats_.misses;
  if (!same) return false;  // evicted while it was read
  if (error) note_error(fmt::format("{}: cannot read: {}", name, std::strerror(error)));
  if (error == EMFILE || error == ENFILE || error == ENOMEM) return false;  // this process's trouble, not the block's
  ++stats_.damaged;
  forget(place->second);
  if (const int failed = remove_at(folder_, name))
    note_error(fmt::format("{}: damaged, and cannot be removed: {}", name, std::strerror(failed)));
  return false;
}

bool BlockStore::read_block(const FileDescriptor& file, const BlockKey& key,
                            std::span<const std::span<std::byte>> pieces, int& error) {
  Header expected{.key = key.words, .size = static_cast<uint64_t>(size_of(pieces))};
  int64_t offset = sizeof(Header);
  struct stat status {};
  if (fstat(file.get(), &status) != 0) {
    error = errno;
    return false;
  }
  if (!S_ISREG(status.st_mode) || status.st_size != offset + size_of(pieces)) return false;
  const auto read = [&](void* data, size_t size, int64_t at) {
    const int result = read_all(file, data, size, at);
    error = std::max(result, 0);
    return result == 0;
  };
  Header header{.key = {}};
  if (!read(&header, sizeof header, 0)) return false;
  Checksum checksum(expected);
  for (std::span<std::byte> piece : pieces)
    while (!piece.empty()) {
      const std::span<std::byte> slice = piece.first(std::min(kSlice, piece.size()));
      if (!read(slice.data(), slice.size(), offset)) return false;
      checksum.add(slice);
      offset += static_cast<int64_t>(slice.size());
      piece = piece.subspan(slice.size());
    }
  expected.checksum = checksum.value();
  return header == expected;
}

void BlockStore::touch(std::span<const BlockKey> keys) {
  {
    const std::lock_guard lock(mutex_);
    for (const BlockKey& key : keys) {
      const auto place = places_.find(key);
      if (place == places_.end()) continue;
      blocks_.splice(blocks_.end(), blocks_, place->second);
      touched_.emplace_back(key, next_stamp());
    }
  }
  work_.notify_one();
}

void BlockStore::flush() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return waiting_.empty() && touched_.empty() && !stamping_; });
}

BlockStoreStats BlockStore::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void BlockStore::write_queue() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return stopping_ || !queue_.empty() || !touched_.empty(); });
    if (queue_.empty() && touched_.empty()) return;
    if (queue_.empty()) {
      const auto touched = std::exchange(touched_, {});
      stamping_ = true;
      lock.unlock();
      // One that is gone by now, or was read since, loses nothing that matters.
      for (const auto& [key, stamp] : touched) set_modified_at(folder_, name_of(key), stamp);
      lock.lock();
      stamping_ = false;
      if (waiting_.empty() && touched_.empty()) idle_.notify_all();
      continue;
    }
    const BlockKey key = queue_.front();
    queue_.pop_front();
    const Content content = waiting_.at(key);
    lock.unlock();
    const Status written = write_block(key, *content);
    lock.lock();
    if (written) {
      ++stats_.written;
      add_newest(key, on_disk(static_cast<int64_t>(content->size())));
    } else {
      note_error(written.error().message);
    }
    waiting_.erase(key);
    stats_.queued_bytes -= static_cast<int64_t>(content->size());
    if (waiting_.empty() && touched_.empty()) idle_.notify_all();
  }
}

Status BlockStore::write_block(const BlockKey& key, std::span<const std::byte> content) {
  FATHOM_RETURN_IF_ERROR(make_room(on_disk(static_cast<int64_t>(content.size()))));
  Header header{.key = key.words, .size = content.size()};
  Checksum checksum(header);
  checksum.add(content);
  header.checksum = checksum.value();

  const std::string name = name_of(key);
  const auto failed = [&] {
    const int error = errno;
    remove_at(folder_, kTemporary);
    return fail("{}: cannot write: {}", name, std::strerror(error));
  };
  // Never into what may be there already: a link, a pipe, a file that somebody has open.
  remove_at(folder_, kTemporary);
  const FileDescriptor file(
      openat(folder_.get(), kTemporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file || !write_all(file, &header, sizeof header) || !write_all(file, content.data(), content.size()))
    return failed();
  {
    const std::lock_guard lock(mutex_);
    set_modified(file, next_stamp());
  }
  if (mkdirat(folder_.get(), name.substr(0, 2).c_str(), 0700) != 0 && errno != EEXIST) return failed();
  if (renameat(folder_.get(), kTemporary, folder_.get(), name.c_str()) != 0) return failed();
  return {};
}

Status BlockStore::make_room(int64_t disk_bytes) {
  std::unique_lock lock(mutex_);
  while (stats_.bytes + disk_bytes > settings_.capacity_bytes) {
    const Block oldest = blocks_.front();
    forget(blocks_.begin());
    lock.unlock();
    const int failed = remove_at(folder_, name_of(oldest.key));
    lock.lock();
    if (failed) {
      add_newest(oldest.key, oldest.disk_bytes);  // it still takes its room; next time it is another one's turn
      return fail("{}: cannot be removed to make room: {}", name_of(oldest.key), std::strerror(failed));
    }
    ++stats_.evicted;
  }
  return {};
}

void BlockStore::note_error(std::string message) {
  ++stats_.errors;
  stats_.last_error = fmt::format("{}: {}", settings_.folder.string(), message);
}

int64_t BlockStore::next_stamp() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  last_stamp_ = std::max(last_stamp_ + 1, int64_t{std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()});
  return last_stamp_;
}

void BlockStore::add_newest(const BlockKey& key, int64_t disk_bytes) {
  if (const auto place = places_.find(key); place != places_.end()) forget(place->second);
  places_[key] = blocks_.insert(blocks_.end(), {key, disk_bytes, ++last_generation_});
  ++stats_.blocks;
  stats_.bytes += disk_bytes;
}

void BlockStore::forget(Blocks::iterator block) {
  --stats_.blocks;
  stats_.bytes -= block->disk_bytes;
  places_.erase(block->key);
  blocks_.erase(block);
}

}  // namespace fathom
