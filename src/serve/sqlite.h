// SQLite as this folder uses it: an owner of a connection, statements with bound values, files that say what they are.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace fathom {

// What a file of ours is. Both numbers stand in the header of the file.
struct DatabaseFormat {
  std::string_view what;   // "a key store", for messages
  int32_t application_id;  // tells it from the files of other programs
  int32_t version;         // of the schema
  const char* schema;      // makes it in an empty file
};

// A statement that is run again and again. Values reach SQL in no other way. The database must outlive it.
class Statement {
 public:
  // Begins anew, with these values for its parameters, in order: integers, doubles, text, bytes, or optional ones of these.
  template <typename... Values>
  void bind(const Values&... values) {
    begin(sizeof...(values));
    int parameter = 0;
    (set(++parameter, values), ...);
  }
  // Whether there is a row (more). After the last, and after a failure, it holds nothing locked.
  Result<bool> next();
  // bind, and to the end: for what gives no rows.
  template <typename... Values>
  Status run(const Values&... values) {
    bind(values...);
    return finish();
  }

  // Of the row; columns count from 0. Null is 0 and empty.
  bool null(int column) const;
  int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;
  std::optional<int64_t> optional_integer(int column) const;
  std::optional<double> optional_real(int column) const;

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  Statement(sqlite3_stmt* statement, const std::string& path) : statement_(statement), path_(path) {}
  void begin(size_t values);
  Status finish();
  void set(int parameter, int64_t value);
  void set(int parameter, int value) { set(parameter, int64_t{value}); }
  void set(int parameter, bool value) { set(parameter, int64_t{value}); }
  void set(int parameter, double value);
  void set(int parameter, std::string_view text);
  void set(int parameter, const std::string& text) { set(parameter, std::string_view(text)); }
  void set(int parameter, const char* text) { set(parameter, std::string_view(text)); }
  void set(int parameter, std::span<const uint8_t> bytes);
  void set(int parameter, std::nullopt_t);
  template <typename T>
  void set(int parameter, const std::optional<T>& value) {
    if (value)
      set(parameter, *value);
    else
      set(parameter, std::nullopt);
  }

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  std::string path_;
};

// A connection to a file of one format. Move-only; one thread at a time. Errors name the file, what is wrong with it and what
// to do. A file that is damaged, or not ours, is left as it is.
class Database {
 public:
  enum class Mode {
    kRead,    // must be there; nothing is changed
    kWrite,   // must be there
    kCreate,  // made when it is missing or empty, readable by its owner alone
  };
  // wal: readers and a writer do not wait for each other, and a commit needs no flush to the disk: it survives the death of
  // the process, and a power cut may take the last ones.
  static Result<Database> open(const std::filesystem::path& path, const DatabaseFormat& format, Mode mode,
                               bool wal = false);

  Result<Statement> prepare(const char* sql);
  Status execute(const char* sql);
  // The one number that a query gives.
  Result<int64_t> integer(const char* sql);
  // All of it or nothing. Others may read meanwhile.
  Status transact(const std::function<Status()>& change);
  // SQLite's own look at the whole file.
  Status check();
  // Whether the file of that name is still the one that was opened. SQLite would go on writing to one that was deleted.
  Status check_in_place() const;
  const std::string& path() const { return path_; }

 private:
  struct Close {
    void operator()(sqlite3* connection) const;
  };
  Database() = default;
  Status check_format(const DatabaseFormat& format, Mode mode);
  Status create(const DatabaseFormat& format);

  std::unique_ptr<sqlite3, Close> connection_;
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace fathom
