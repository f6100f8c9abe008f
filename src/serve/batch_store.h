// What clients have uploaded, the batches that they have asked for, and what came of those.
//
// On disk, in a folder of the store's own: batches.db, a SQLite file that says what there is, and each file of a client under its
// id. A file is entered when it is whole; what has no entry is deleted at the next start, but for the outputs of batches that are
// under way. Everything is readable by its owner alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/api_error.h"
#include "base/result.h"
#include "serve/sqlite.h"

namespace fathom {

struct StoredFile {
  std::string id{};   // "file-…"
  std::string key{};  // the name of the API key that it belongs to
  std::string filename{}, purpose{};
  int64_t bytes = 0;
  int64_t created = 0;  // seconds since 1970, as all times here
};

enum class BatchStatus { kValidating, kFailed, kInProgress, kCompleted, kExpired, kCancelling, kCancelled };
// As the API words it, "in_progress".
std::string_view batch_status_name(BatchStatus status);
// Nothing more comes of it.
bool is_over(BatchStatus status);

struct StoredBatch {
  std::string id{};  // "batch_…"
  std::string key{};
  std::string endpoint{}, input_file{};
  std::string metadata{};  // JSON as the client gave it; empty: none
  std::string output_file{},
      error_file{};  // ids, chosen at its beginning; files of these ids are there when it is over and has such lines
  BatchStatus status = BatchStatus::kValidating;
  int64_t created = 0, expires = 0;
  std::optional<int64_t> started{}, cancelling{}, ended{};
  int64_t requests = 0, completed = 0, failed = 0;
  std::string errors{};  // JSON: what is wrong with its input; empty: nothing
};

// At most `most` of a list, those behind the one of that id; empty: from the beginning.
struct PageQuery {
  int64_t most = 20;
  std::string after{};
  bool newest_first = true;
};
template <typename Item>
struct Page {
  std::vector<Item> items;
  bool more = false;
};

// Permissions of its files.
inline constexpr mode_t kOwnerOnly = 0600;

// A key sees and changes what belongs to it alone. Thread-safe; every call may wait for the disk. Failures of the disk are
// ApiErrors of status 500, their message for the operator.
class BatchStore {
 public:
  // most_bytes: of all files together.
  static Result<std::unique_ptr<BatchStore>> open(const std::filesystem::path& folder, int64_t most_bytes);

  // A new file, with id, size and time. 413: there is no room for it.
  ApiResult<StoredFile> add_file(std::string_view key, std::string_view filename, std::string_view purpose,
                                 std::string_view content);
  // 404: this key has no such file.
  ApiResult<StoredFile> file(std::string_view key, std::string_view id) const;
  ApiResult<Page<StoredFile>> files(std::string_view key, std::string_view purpose, const PageQuery& query) const;
  // 409: a batch that is not over reads it.
  ApiResult<void> remove_file(std::string_view key, std::string_view id);
  std::filesystem::path path_of(std::string_view file) const;

  // Of one key.
  static constexpr int64_t kMostUnfinished = 100;
  // 429: there are as many. A new batch: key, endpoint, input_file, metadata and expires are taken from what is given.
  ApiResult<StoredBatch> add_batch(StoredBatch batch);
  ApiResult<StoredBatch> batch(std::string_view key, std::string_view id) const;
  ApiResult<Page<StoredBatch>> batches(std::string_view key, const PageQuery& query) const;
  // Of all keys, the oldest first.
  Result<std::vector<StoredBatch>> unfinished() const;
  // Writes what has changed. One that is over has its output files entered with that, those that have lines.
  Status update(const StoredBatch& batch);

 private:
  BatchStore(std::filesystem::path folder, int64_t most_bytes, Database database);
  Status delete_leftovers() const;
  Status insert(const StoredFile& file);
  ApiResult<void> reserve(int64_t bytes);  // 413: there is no room for so many

  const std::filesystem::path folder_;
  const int64_t most_bytes_;
  mutable std::mutex mutex_;  // guards what follows
  mutable Database database_;
  int64_t arriving_ = 0;  // bytes of files that are being written and not yet entered
};

}  // namespace fathom
