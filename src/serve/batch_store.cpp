#include "serve/batch_store.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <set>
#include <utility>

#include "api/identifiers.h"
#include "base/clock.h"
#include "base/file.h"

namespace fathom {

namespace fs = std::filesystem;

namespace {

constexpr DatabaseFormat kBatchFormat{.what = "a store of batches",
                                      .application_id = 0x66746261,  // "ftba"
                                      .version = 1,
                                      .schema = R"(
      CREATE TABLE files (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT UNIQUE NOT NULL,
        key TEXT NOT NULL,
        filename TEXT NOT NULL,
        purpose TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        created INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX files_by_key ON files (key, number);
      CREATE TABLE batches (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT UNIQUE NOT NULL,
        key TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        input_file TEXT NOT NULL,
        metadata TEXT NOT NULL,
        output_file TEXT NOT NULL,
        error_file TEXT NOT NULL,
        status TEXT NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        started INTEGER,
        cancelling INTEGER,
        ended INTEGER,
        requests INTEGER NOT NULL,
        completed INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        errors TEXT NOT NULL
      ) STRICT;
      CREATE INDEX batches_by_key ON batches (key, number);)"};

constexpr std::array<std::pair<BatchStatus, std::string_view>, 7> kStatuses = {
    {{BatchStatus::kValidating, "validating"},
     {BatchStatus::kFailed, "failed"},
     {BatchStatus::kInProgress, "in_progress"},
     {BatchStatus::kCompleted, "completed"},
     {BatchStatus::kExpired, "expired"},
     {BatchStatus::kCancelling, "cancelling"},
     {BatchStatus::kCancelled, "cancelled"}}};

#define FATHOM_FILE_COLUMNS "id, key, filename, purpose, bytes, created"
#define FATHOM_BATCH_COLUMNS                                                                                          \
  "id, key, endpoint, input_file, metadata, output_file, error_file, status, created, expires, started, cancelling, " \
  "ended, requests, completed, failed, errors"
#define FATHOM_UNFINISHED "status IN ('validating', 'in_progress', 'cancelling')"
// ?1 key, ?2 the item before the page (null: none), ?3 how many. Expressions of SQL cannot be bound: one query for each order.
#define FATHOM_PAGE(columns, table, condition, order, after)                                                        \
  "SELECT " columns " FROM " table " WHERE key = ?1 AND (?2 IS NULL OR number " after " (SELECT number FROM " table \
  " WHERE id = ?2 AND key = ?1)) " condition " ORDER BY number " order " LIMIT ?3"
#define FATHOM_PAGES(columns, table, condition) \
  { FATHOM_PAGE(columns, table, condition, "ASC", ">"), FATHOM_PAGE(columns, table, condition, "DESC", "<") }
// By newest_first.
constexpr const char* kFilePages[] = FATHOM_PAGES(FATHOM_FILE_COLUMNS, "files", "AND (?4 IS NULL OR purpose = ?4)");
constexpr const char* kBatchPages[] = FATHOM_PAGES(FATHOM_BATCH_COLUMNS, "batches", "");
#undef FATHOM_PAGES
#undef FATHOM_PAGE

StoredFile file_of(const Statement& row) {
  return {.id = row.text(0),
          .key = row.text(1),
          .filename = row.text(2),
          .purpose = row.text(3),
          .bytes = row.integer(4),
          .created = row.integer(5)};
}

StoredBatch batch_of(const Statement& row) {
  StoredBatch b{.id = row.text(0),
                .key = row.text(1),
                .endpoint = row.text(2),
                .input_file = row.text(3),
                .metadata = row.text(4),
                .output_file = row.text(5),
                .error_file = row.text(6),
                .created = row.integer(8),
                .expires = row.integer(9),
                .started = row.optional_integer(10),
                .cancelling = row.optional_integer(11),
                .ended = row.optional_integer(12),
                .requests = row.integer(13),
                .completed = row.integer(14),
                .failed = row.integer(15),
                .errors = row.text(16)};
  const std::string status = row.text(7);
  const auto known = std::ranges::find(kStatuses, std::string_view(status), &decltype(kStatuses)::value_type::second);
  b.status = known == kStatuses.end() ? BatchStatus::kFailed : known->first;
  return b;
}

ApiError disk_error(const Error& error) { return {500, error.message}; }
ApiError no_such(std::string_view what, std::string_view id) {
  return {404, fmt::format("{}: there is no {} of this id, or it is not yours", in_quotes(id), what), "", "not_found"};
}
std::optional<std::string_view> optional(std::string_view text) {
  return text.empty() ? std::nullopt : std::optional(text);
}

template <typename Item>
Result<Page<Item>> read_page(Statement& rows, int64_t most, Item (*item_of)(const Statement&)) {
  Page<Item> page;
  while (true) {
    FATHOM_TRY(const bool more, rows.next());
    if (!more) return page;
    if (static_cast<int64_t>(page.items.size()) == most) {
      page.more = true;
      return page;
    }
    page.items.push_back(item_of(rows));
  }
}

int64_t bytes_of(const fs::path& path) {
  std::error_code none;
  const auto bytes = fs::file_size(path, none);
  return none ? 0 : static_cast<int64_t>(bytes);
}

}  // namespace

std::string_view batch_status_name(BatchStatus status) {
  return std::ranges::find(kStatuses, status, &decltype(kStatuses)::value_type::first)->second;
}

bool is_over(BatchStatus status) {
  return status != BatchStatus::kValidating && status != BatchStatus::kInProgress && status != BatchStatus::kCancelling;
}

BatchStore::BatchStore(fs::path folder, int64_t most_bytes, Database database)
    : folder_(std::move(folder)), most_bytes_(most_bytes), database_(std::move(database)) {}

Result<std::unique_ptr<BatchStore>> BatchStore::open(const fs::path& folder, int64_t most_bytes) {
  std::error_code error;
  if (fs::create_directories(folder, error)) fs::permissions(folder, fs::perms::owner_all, error);
  if (!fs::is_directory(folder, error))
    return fail("{}: cannot be made a folder for files of batches", folder.string());
  FATHOM_TRY(Database database,
             Database::open(folder / "batches.db", kBatchFormat, Database::Mode::kCreate, /*wal=*/true));
  auto store = std::unique_ptr<BatchStore>(new BatchStore(folder, most_bytes, std::move(database)));
  FATHOM_RETURN_IF_ERROR(store->delete_leftovers());
  return store;
}

// Of uploads that a crash cut off, and of files whose entry is gone.
Status BatchStore::delete_leftovers() const {
  std::set<std::string> known;
  FATHOM_TRY(Statement rows,
             database_.prepare("SELECT id FROM files UNION SELECT output_file FROM batches WHERE " FATHOM_UNFINISHED
                               " UNION SELECT error_file FROM batches WHERE " FATHOM_UNFINISHED));
  while (true) {
    FATHOM_TRY(const bool more, rows.next());
    if (!more) break;
    known.insert(rows.text(0));
  }
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder_, none)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("file-") && !known.contains(name)) fs::remove(entry.path(), none);
  }
  return {};
}

fs::path BatchStore::path_of(std::string_view file) const { return folder_ / file; }

// --- Files

Status BatchStore::insert(const StoredFile& file) {
  FATHOM_TRY(Statement row, database_.prepare("INSERT INTO files (" FATHOM_FILE_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?)"));
  return row.run(file.id, file.key, file.filename, file.purpose, file.bytes, file.created);
}

ApiResult<void> BatchStore::reserve(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto stored = database_.integer("SELECT coalesce(sum(bytes), 0) FROM files");
  if (!stored) return tl::unexpected(disk_error(stored.error()));
  const int64_t taken = *stored + arriving_;
  if (taken + bytes > most_bytes_)
    return tl::unexpected(ApiError{413,
                                   fmt::format("the file has {} bytes, and of the {} bytes that this server keeps for "
                                               "files {} are taken: delete some, DELETE /v1/files/ID",
                                               bytes, most_bytes_, taken),
                                   "file", "storage_full"});
  arriving_ += bytes;
  return {};
}

ApiResult<StoredFile> BatchStore::add_file(std::string_view key, std::string_view filename, std::string_view purpose,
                                           std::string_view content) {
  StoredFile file{.id = random_id("file-"),
                  .key = std::string(key),
                  .filename = std::string(filename),
                  .purpose = std::string(purpose),
                  .bytes = static_cast<int64_t>(content.size()),
                  .created = now_seconds()};
  FATHOM_RETURN_IF_ERROR(reserve(file.bytes));
  const Status written = write_file_atomically(path_of(file.id), content, kOwnerOnly);
  const std::lock_guard lock(mutex_);
  arriving_ -= file.bytes;
  if (!written) return tl::unexpected(disk_error(written.error()));
  if (const Status entered = insert(file); !entered) {
    std::error_code none;
    fs::remove(path_of(file.id), none);
    return tl::unexpected(disk_error(entered.error()));
  }
  return file;
}

ApiResult<StoredFile> BatchStore::file(std::string_view key, std::string_view id) const {
  const auto found = [&]() -> Result<std::optional<StoredFile>> {
    const std::lock_guard lock(mutex_);
    FATHOM_TRY(Statement row, database_.prepare("SELECT " FATHOM_FILE_COLUMNS " FROM files WHERE id = ? AND key = ?"));
    row.bind(id, key);
    FATHOM_TRY(const bool there, row.next());
    return there ? std::optional(file_of(row)) : std::nullopt;
  }();
  if (!found) return tl::unexpected(disk_error(found.error()));
  if (!*found) return tl::unexpected(no_such("file", id));
  return **found;
}

ApiResult<Page<StoredFile>> BatchStore::files(std::string_view key, std::string_view purpose,
                                              const PageQuery& query) const {
  if (!query.after.empty()) FATHOM_RETURN_IF_ERROR(file(key, query.after));
  auto page = [&]() -> Result<Page<StoredFile>> {
    const std::lock_guard lock(mutex_);
    FATHOM_TRY(Statement rows, database_.prepare(kFilePages[query.newest_first]));
    rows.bind(key, optional(query.after), query.most + 1, optional(purpose));
    return read_page(rows, query.most, file_of);
  }();
  if (!page) return tl::unexpected(disk_error(page.error()));
  return *std::move(page);
}

ApiResult<void> BatchStore::remove_file(std::string_view key, std::string_view id) {
  FATHOM_RETURN_IF_ERROR(file(key, id));
  std::string reader;
  const std::lock_guard lock(mutex_);
  const Status removed = database_.transact([&]() -> Status {
    FATHOM_TRY(Statement readers,
               database_.prepare("SELECT id FROM batches WHERE input_file = ? AND " FATHOM_UNFINISHED));
    readers.bind(id);
    FATHOM_TRY(const bool read, readers.next());
    if (read) {
      reader = readers.text(0);
      return {};
    }
    FATHOM_TRY(Statement row, database_.prepare("DELETE FROM files WHERE id = ?"));
    return row.run(id);
  });
  if (!removed) return tl::unexpected(disk_error(removed.error()));
  if (!reader.empty())
    return tl::unexpected(ApiError{
        409, fmt::format("{}: is read by the batch {}, which is not over: cancel that first", in_quotes(id), reader)});
  std::error_code none;  // what cannot be deleted now is at the next start
  fs::remove(path_of(id), none);
  return {};
}

// --- Batches

ApiResult<StoredBatch> BatchStore::add_batch(StoredBatch batch) {
  batch.id = random_id("batch_");
  batch.output_file = random_id("file-");
  batch.error_file = random_id("file-");
  batch.created = now_seconds();
  const std::lock_guard lock(mutex_);
  int64_t unfinished = 0;
  const Status entered = [&]() -> Status {
    FATHOM_TRY(Statement others,
               database_.prepare("SELECT count(*) FROM batches WHERE key = ? AND " FATHOM_UNFINISHED));
    others.bind(batch.key);
    FATHOM_RETURN_IF_ERROR(others.next());
    unfinished = others.integer(0);
    if (unfinished >= kMostUnfinished) return {};
    FATHOM_TRY(Statement row, database_.prepare("INSERT INTO batches (" FATHOM_BATCH_COLUMNS
                                                ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    return row.run(batch.id, batch.key, batch.endpoint, batch.input_file, batch.metadata, batch.output_file,
                   batch.error_file, batch_status_name(batch.status), batch.created, batch.expires, batch.started,
                   batch.cancelling, batch.ended, batch.requests, batch.completed, batch.failed, batch.errors);
  }();
  if (!entered) return tl::unexpected(disk_error(entered.error()));
  if (unfinished >= kMostUnfinished)
    return tl::unexpected(ApiError{
        429,
        fmt::format("{} batches of this key are not over, as many as may be: wait for one, or cancel it", unfinished),
        "", "rate_limit_exceeded"});
  return batch;
}

ApiResult<StoredBatch> BatchStore::batch(std::string_view key, std::string_view id) const {
  const auto found = [&]() -> Result<std::optional<StoredBatch>> {
    const std::lock_guard lock(mutex_);
    FATHOM_TRY(Statement row,
               database_.prepare("SELECT " FATHOM_BATCH_COLUMNS " FROM batches WHERE id = ? AND key = ?"));
    row.bind(id, key);
    FATHOM_TRY(const bool there, row.next());
    return there ? std::optional(batch_of(row)) : std::nullopt;
  }();
  if (!found) return tl::unexpected(disk_error(found.error()));
  if (!*found) return tl::unexpected(no_such("batch", id));
  return **found;
}

ApiResult<Page<StoredBatch>> BatchStore::batches(std::string_view key, const PageQuery& query) const {
  if (!query.after.empty()) FATHOM_RETURN_IF_ERROR(batch(key, query.after));
  auto page = [&]() -> Result<Page<StoredBatch>> {
    const std::lock_guard lock(mutex_);
    FATHOM_TRY(Statement rows, database_.prepare(kBatchPages[query.newest_first]));
    rows.bind(key, optional(query.after), query.most + 1);
    return read_page(rows, query.most, batch_of);
  }();
  if (!page) return tl::unexpected(disk_error(page.error()));
  return *std::move(page);
}

Result<std::vector<StoredBatch>> BatchStore::unfinished() const {
  const std::lock_guard lock(mutex_);
  FATHOM_TRY(Statement rows, database_.prepare("SELECT " FATHOM_BATCH_COLUMNS " FROM batches WHERE " FATHOM_UNFINISHED
                                               " ORDER BY number"));
  std::vector<StoredBatch> all;
  while (true) {
    FATHOM_TRY(const bool more, rows.next());
    if (!more) return all;
    all.push_back(batch_of(rows));
  }
}

Status BatchStore::update(const StoredBatch& batch) {
  const std::lock_guard lock(mutex_);
  return database_.transact([&]() -> Status {
    FATHOM_TRY(Statement row,
               database_.prepare("UPDATE batches SET status = ?, started = ?, cancelling = ?, ended = ?, "
                                 "requests = ?, completed = ?, failed = ?, errors = ? WHERE id = ?"));
    FATHOM_RETURN_IF_ERROR(row.run(batch_status_name(batch.status), batch.started, batch.cancelling, batch.ended,
                                   batch.requests, batch.completed, batch.failed, batch.errors, batch.id));
    if (!is_over(batch.status)) return {};
    for (const auto& [id, what] : {std::pair(batch.output_file, "output"), std::pair(batch.error_file, "error")}) {
      const int64_t bytes = bytes_of(path_of(id));
      if (bytes == 0) continue;
      FATHOM_RETURN_IF_ERROR(insert({.id = id,
                                     .key = batch.key,
                                     .filename = fmt::format("{}_{}.jsonl", batch.id, what),
                                     .purpose = "batch_output",
                                     .bytes = bytes,
                                     .created = batch.ended.value_or(now_seconds())}));
    }
    return {};
  });
}

}  // namespace fathom
