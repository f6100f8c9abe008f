// API keys: who may ask, until when, and how much. A key is 256 random bits that are shown once; the file has its SHA-256.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
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

// What a key may do; nothing said is no limit.
struct KeyLimits {
  std::optional<int64_t> requests_per_minute{}, tokens_per_minute{};
  std::optional<int64_t> concurrent{};  // requests under way
  // For all requests of the key ever, as a prepaid balance: raise it to go on. Not a monthly one.
  std::optional<double> budget_usd{};
  std::vector<std::string> models{};  // that it may use; empty: all

  bool allows(std::string_view model) const;
};

struct KeySettings {
  std::optional<int64_t> expires{};  // seconds since 1970; not valid from then on
  KeyLimits limits{};
};

struct KeyInfo {
  std::string name;
  int64_t created = 0;               // seconds since 1970, as all times here
  std::optional<int64_t> revoked{};  // when
  KeySettings settings{};
};

// Who asks. Without a name: no key was asked for.
struct Principal {
  std::string name{};
  KeyLimits limits{};
};

enum class KeyProblem { kUnknown, kExpired, kRevoked };
// 401, in words for the client.
ApiError api_error(KeyProblem problem);

// The keys of a file, which several processes may use and change. Thread-safe; `find` waits for no file.
class KeyStore {
 public:
  // Reads all keys. Fails on a file that is damaged, of another version or of something else.
  static Result<std::unique_ptr<KeyStore>> open(const std::filesystem::path& path, Database::Mode mode);
  ~KeyStore();

  // Whose key that is. What it compares are hashes, in a time that does not depend on how much of them is equal.
  tl::expected<Principal, KeyProblem> find(std::string_view key, int64_t now) const;
  // Who has the key of that name; nothing where it is not valid (any more).
  std::optional<Principal> named(std::string_view name, int64_t now) const;
  // Reads the file again if another process changed or replaced it. To be called every second or so; on failure what was read
  // before holds on.
  Status refresh();

  // In the order in which they were made.
  std::vector<KeyInfo> list() const;
  // The new key, which nothing keeps. A name is 1 to 64 letters, digits and "._@+-", and is never used again, since the ledger
  // counts by name.
  Result<std::string> add(const std::string& name, const KeySettings& settings, int64_t now);
  // Fails for a name that is not there. Revoking one again changes nothing.
  Status revoke(const std::string& name, int64_t now);
  Status change(const std::string& name, const std::function<void(KeySettings&)>& edit);

 private:
  struct Keys;
  KeyStore(Database database, Database::Mode mode);
  Result<std::shared_ptr<const Keys>> read();
  Status read_again();
  Result<KeyInfo> info(const std::string& name) const;
  std::shared_ptr<const Keys> keys() const;

  const Database::Mode mode_;
  std::mutex database_mutex_;  // guards the next two
  Database database_;
  int64_t version_ = 0;       // of the content, as SQLite counts the changes by others
  mutable std::mutex mutex_;  // guards keys_, which is replaced as a whole
  std::shared_ptr<const Keys> keys_;
};

}  // namespace fathom
