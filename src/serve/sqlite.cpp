#include "serve/sqlite.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/file_descriptor.h"

namespace fathom {

namespace {

// How long another connection's write is waited for.
constexpr int kBusyMs = 2000;

tl::unexpected<Error> failure(sqlite3* connection, const std::string& path) {
  const std::string said = sqlite3_errmsg(connection);
  const int system = sqlite3_system_errno(connection);
  const std::string why = system != 0 ? fmt::format("{} ({})", said, std::strerror(system)) : said;
  switch (sqlite3_errcode(connection) & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return fail("{}: damaged, or no SQLite database: {}. It is left as it is: restore a copy of it, or move it away",
                  path, said);
    case SQLITE_FULL:
      return fail("{}: cannot be written: {}. Make room on the disk", path, why);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
      return fail("{}: cannot be opened or written: {}. The file and its folder must be writable for this user", path,
                  why);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return fail("{}: another program has held it locked for {} s: {}", path, kBusyMs / 1000, said);
    default:
      return fail("{}: {}", path, why);
  }
}

}  // namespace

// --- Statement

void Statement::Finalize::operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }

void Statement::begin(size_t values) {
  sqlite3_reset(statement_.get());
  const int wanted = sqlite3_bind_parameter_count(statement_.get());
  FATHOM_CHECK(static_cast<size_t>(wanted) == values, "{} values for the {} parameters of: {}", values, wanted,
               sqlite3_sql(statement_.get()));
}

// Binding fails for want of memory, or for text beyond SQLite's 10⁹ bytes, and the parameter is then null: what must be there
// is NOT NULL in our schemas, so that the step fails.
void Statement::set(int parameter, int64_t value) { sqlite3_bind_int64(statement_.get(), parameter, value); }
void Statement::set(int parameter, double value) { sqlite3_bind_double(statement_.get(), parameter, value); }
void Statement::set(int parameter, std::nullopt_t) { sqlite3_bind_null(statement_.get(), parameter); }
void Statement::set(int parameter, std::string_view text) {
  // A null pointer would be bound as null, not as an empty text.
  sqlite3_bind_text64(statement_.get(), parameter, text.empty() ? "" : text.data(), text.size(), SQLITE_TRANSIENT,
                      SQLITE_UTF8);
}
void Statement::set(int parameter, std::span<const uint8_t> bytes) {
  sqlite3_bind_blob64(statement_.get(), parameter, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
}

Result<bool> Statement::next() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  sqlite3* connection = sqlite3_db_handle(statement_.get());
  if (code == SQLITE_DONE) {
    sqlite3_reset(statement_.get());
    return false;
  }
  auto error = failure(connection, path_);
  sqlite3_reset(statement_.get());
  return error;
}

Status Statement::finish() {
  while (true) {
    FATHOM_TRY(const bool more, next());
    if (!more) return {};
  }
}

bool Statement::null(int column) const { return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }
int64_t Statement::integer(int column) const { return sqlite3_column_int64(statement_.get(), column); }
double Statement::real(int column) const { return sqlite3_column_double(statement_.get(), column); }
std::string Statement::text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return bytes ? std::string(static_cast<const char*>(bytes), static_cast<size_t>(size)) : std::string();
}
std::optional<int64_t> Statement::optional_integer(int column) const {
  return null(column) ? std::nullopt : std::optional(integer(column));
}
std::optional<double> Statement::optional_real(int column) const {
  return null(column) ? std::nullopt : std::optional(real(column));
}

// --- Database

void Database::Close::operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }

Result<Database> Database::open(const std::filesystem::path& path, const DatabaseFormat& format, Mode mode, bool wal) {
  Database database;
  std::error_code none;
  // Absolute: SQLite gives names like ":memory:" and "file:x" a meaning.
  database.path_ = std::filesystem::absolute(path, none).string();
  if (mode == Mode::kCreate) {
    // Only where there is none: closing a descriptor of a file drops the locks that SQLite has on it in this process.
    const FileDescriptor made(::open(database.path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!made && errno != EEXIST) return fail("{}: cannot be made: {}", database.path_, std::strerror(errno));
  }
  struct stat info {};
  if (::stat(database.path_.c_str(), &info) != 0)
    return fail("{}: cannot open it as {}: {}", database.path_, format.what, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return fail("{}: no regular file; {} is to be one", database.path_, format.what);
  database.device_ = info.st_dev;
  database.inode_ = info.st_ino;

  // For reading too, where that is permitted: what a killed process left half done has to be taken back first.
  sqlite3* connection = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  const int code = sqlite3_open_v2(database.path_.c_str(), &connection, flags, nullptr);
  database.connection_.reset(connection);
  if (!connection) return fail("{}: cannot be opened: {}", database.path_, sqlite3_errstr(code));
  if (code != SQLITE_OK) return failure(connection, database.path_);
  sqlite3_busy_timeout(connection, kBusyMs);
  // The schema of a file is not to be trusted more than its rows.
  sqlite3_db_config(connection, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(connection, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  FATHOM_RETURN_IF_ERROR(database.check_format(format, mode));
  if (mode == Mode::kRead) {
    FATHOM_RETURN_IF_ERROR(database.execute("PRAGMA query_only = 1"));
  } else if (wal) {
    FATHOM_TRY(Statement set_mode, database.prepare("PRAGMA journal_mode = WAL"));
    FATHOM_TRY(const bool answered, set_mode.next());
    if (!answered || set_mode.text(0) != "wal")
      return fail("{}: this file system cannot hold {}: no write-ahead log (SQLite's WAL) there; use a local disk",
                  database.path_, format.what);
    FATHOM_RETURN_IF_ERROR(set_mode.finish());
    FATHOM_RETURN_IF_ERROR(database.execute("PRAGMA synchronous = NORMAL"));
  }
  return database;
}

Status Database::check_format(const DatabaseFormat& format, Mode mode) {
  FATHOM_TRY(int64_t application, integer("PRAGMA application_id"));
  FATHOM_TRY(int64_t version, integer("PRAGMA user_version"));
  FATHOM_TRY(int64_t objects, integer("SELECT count(*) FROM sqlite_schema"));
  if (application == 0 && version == 0 && objects == 0) {
    if (mode != Mode::kCreate)
      return fail("{}: an empty file, no {}", path_, format.what.substr(format.what.find(' ') + 1));
    return create(format);
  }
  if (application != format.application_id)
    return fail(
        "{}: a SQLite database of something else (application id {}), not {} ({}). It is left as it is: name "
        "another file",
        path_, application, format.what, format.application_id);
  if (version != format.version)
    return fail(
        "{}: {} of schema version {}; this program reads version {}. It is left as it is: use the program that "
        "made it, or name another file",
        path_, format.what, version, format.version);
  return {};
}

Status Database::create(const DatabaseFormat& format) {
  return transact([&]() -> Status {
    // Another process may have been first.
    FATHOM_TRY(const int64_t objects, integer("SELECT count(*) FROM sqlite_schema"));
    if (objects > 0) return check_format(format, Mode::kWrite);
    FATHOM_RETURN_IF_ERROR(execute(format.schema));
    // Pragmas take no parameters; these are numbers of ours.
    FATHOM_RETURN_IF_ERROR(execute(fmt::format("PRAGMA application_id = {}", format.application_id).c_str()));
    return execute(fmt::format("PRAGMA user_version = {}", format.version).c_str());
  });
}

Result<Statement> Database::prepare(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v3(connection_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr) != SQLITE_OK)
    return failure(connection_.get(), path_);
  return Statement(statement, path_);
}

Status Database::execute(const char* sql) {
  if (sqlite3_exec(connection_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    return failure(connection_.get(), path_);
  return {};
}

Result<int64_t> Database::integer(const char* sql) {
  FATHOM_TRY(Statement statement, prepare(sql));
  FATHOM_TRY(const bool there, statement.next());
  FATHOM_CHECK(there, "no row from: {}", sql);
  return statement.integer(0);
}

Status Database::transact(const std::function<Status()>& change) {
  FATHOM_RETURN_IF_ERROR(execute("BEGIN IMMEDIATE"));
  Status status = change();
  if (status) status = execute("COMMIT");
  // A failed commit may have ended the transaction, or not.
  if (!status && sqlite3_get_autocommit(connection_.get()) == 0) static_cast<void>(execute("ROLLBACK"));
  return status;
}

Status Database::check() {
  FATHOM_TRY(Statement statement, prepare("PRAGMA integrity_check(1)"));
  FATHOM_TRY(const bool there, statement.next());
  const std::string said = there ? statement.text(0) : "no answer";
  if (said == "ok") return {};
  return fail("{}: damaged: {}. It is left as it is: restore a copy of it, or move it away", path_, said);
}

Status Database::check_in_place() const {
  struct stat info {};
  if (::stat(path_.c_str(), &info) != 0)
    return fail("{}: moved or deleted while in use ({}); put it back, or restart", path_, std::strerror(errno));
  if (info.st_dev != device_ || info.st_ino != inode_)
    return fail("{}: replaced by another file while in use; put it back, or restart", path_);
  return {};
}

}  // namespace fathom
