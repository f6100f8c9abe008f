#include "serve/key_store.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/quote.h"
#include "text/json.h"

namespace fathom {

namespace {

constexpr std::string_view kPrefix = "sk-fathom-";
constexpr size_t kKeyBytes = 32;
constexpr size_t kMaxKeyText = 256;  // what is longer is none of ours, and is not hashed
constexpr size_t kMaxName = 64;

using Digest = std::array<uint8_t, 32>;

struct DigestHash {
  size_t operator()(const Digest& digest) const {
    size_t hash = 0;
    std::memcpy(&hash, digest.data(), sizeof hash);
    return hash;
  }
};
struct DigestEqual {
  bool operator()(const Digest& a, const Digest& b) const { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }
};

constexpr DatabaseFormat kKeyFormat{.what = "a key store",
                                    .application_id = 0x66746b79,  // "ftky"
                                    .version = 1,
                                    .schema = R"(
      CREATE TABLE keys (
        name TEXT PRIMARY KEY NOT NULL,
        hash BLOB UNIQUE NOT NULL CHECK (length(hash) = 32),
        created INTEGER NOT NULL,
        expires INTEGER,
        revoked INTEGER,
        requests_per_minute INTEGER CHECK (requests_per_minute > 0),
        tokens_per_minute INTEGER CHECK (tokens_per_minute > 0),
        concurrent INTEGER CHECK (concurrent > 0),
        budget_usd REAL CHECK (budget_usd >= 0),
        models TEXT NOT NULL
      ) STRICT)"};

Digest sha256(std::string_view text) {
  Digest digest{};
  unsigned size = 0;
  FATHOM_CHECK(
      EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr) == 1 && size == digest.size(),
      "SHA-256 of {} bytes failed", text.size());
  return digest;
}

// The prefix and base64url.
Result<std::string> random_key() {
  std::array<uint8_t, kKeyBytes> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1)
    return fail("the system gives no random numbers for a key");
  std::array<uint8_t, 4 * ((kKeyBytes + 2) / 3) + 1> text{};
  const int length = EVP_EncodeBlock(text.data(), bytes.data(), static_cast<int>(bytes.size()));
  OPENSSL_cleanse(bytes.data(), bytes.size());
  std::string key(kPrefix);
  for (int i = 0; i < length; ++i) {
    const char c = static_cast<char>(text[static_cast<size_t>(i)]);
    if (c != '=') key += c == '+' ? '-' : c == '/' ? '_' : c;
  }
  return key;
}

bool valid_name(std::string_view name) {
  const auto valid = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._@+-").find(c) != std::string_view::npos;
  };
  return !name.empty() && name.size() <= kMaxName && std::all_of(name.begin(), name.end(), valid);
}

Status check_settings(const KeySettings& settings) {
  std::string problems;
  const auto positive = [&](const char* what, const std::optional<int64_t>& value) {
    if (value && *value <= 0) problems += fmt::format("\n  {}: {}; must be 1 or more, or none", what, *value);
  };
  positive("requests per minute", settings.limits.requests_per_minute);
  positive("tokens per minute", settings.limits.tokens_per_minute);
  positive("concurrent requests", settings.limits.concurrent);
  if (const auto& usd = settings.limits.budget_usd; usd && !(std::isfinite(*usd) && *usd >= 0))
    problems += fmt::format("\n  budget: {}; must be a number of USD, 0 or more, or none", *usd);
  for (const std::string& model : settings.limits.models)
    if (model.empty()) problems += "\n  models: an empty name";
  if (problems.empty()) return {};
  return fail("limits of a key:{}", problems);
}

std::string models_text(const std::vector<std::string>& models) {
  Json json = Json::array();
  for (const std::string& model : models) json.push_back(model);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::vector<std::string>> models_from(const std::string& text, const std::string& source) {
  FATHOM_TRY(const Json json, parse_json(text, source));
  std::vector<std::string> models;
  if (!json.is_array()) return fail("{}: not a list of names", source);
  for (const Json& model : json) {
    if (!model.is_string()) return fail("{}: {} is no name", source, in_quotes(model.dump()));
    models.push_back(model.get<std::string>());
  }
  return models;
}

}  // namespace

bool KeyLimits::allows(std::string_view model) const {
  return models.empty() || std::find(models.begin(), models.end(), model) != models.end();
}

ApiError api_error(KeyProblem problem) {
  switch (problem) {
    case KeyProblem::kExpired:
      return {.status = 401, .message = "This API key has expired. Ask for a new one.", .code = "expired_api_key"};
    case KeyProblem::kRevoked:
      return {.status = 401, .message = "This API key was revoked. Ask for a new one.", .code = "revoked_api_key"};
    case KeyProblem::kUnknown:
      break;
  }
  return {.status = 401,
          .message = "This API key is not known here. Send one as \"Authorization: Bearer sk-fathom-…\".",
          .code = "invalid_api_key"};
}

struct KeyStore::Keys {
  std::vector<KeyInfo> infos;
  std::unordered_map<Digest, size_t, DigestHash, DigestEqual> by_hash;  // where it stands in infos
};

KeyStore::KeyStore(Database database, Database::Mode mode) : mode_(mode), database_(std::move(database)) {}
KeyStore::~KeyStore() = default;

Result<std::unique_ptr<KeyStore>> KeyStore::open(const std::filesystem::path& path, Database::Mode mode) {
  FATHOM_TRY(Database database, Database::open(path, kKeyFormat, mode));
  auto store = std::unique_ptr<KeyStore>(new KeyStore(std::move(database), mode));
  FATHOM_RETURN_IF_ERROR(store->read_again());
  return store;
}

std::shared_ptr<const KeyStore::Keys> KeyStore::keys() const {
  const std::lock_guard lock(mutex_);
  return keys_;
}

namespace {
tl::expected<Principal, KeyProblem> principal_of(const KeyInfo& info, int64_t now) {
  if (info.revoked) return tl::unexpected(KeyProblem::kRevoked);
  if (info.settings.expires && now >= *info.settings.expires) return tl::unexpected(KeyProblem::kExpired);
  return Principal{.name = info.name, .limits = info.settings.limits};
}
}  // namespace

tl::expected<Principal, KeyProblem> KeyStore::find(std::string_view key, int64_t now) const {
  if (key.size() > kMaxKeyText) return tl::unexpected(KeyProblem::kUnknown);
  const Digest digest = sha256(key);
  const std::shared_ptr<const Keys> all = keys();
  const auto place = all->by_hash.find(digest);
  if (place == all->by_hash.end()) return tl::unexpected(KeyProblem::kUnknown);
  return principal_of(all->infos[place->second], now);
}

std::optional<Principal> KeyStore::named(std::string_view name, int64_t now) const {
  const std::shared_ptr<const Keys> all = keys();
  const auto info = std::ranges::find(all->infos, name, &KeyInfo::name);
  if (info == all->infos.end()) return std::nullopt;
  const auto principal = principal_of(*info, now);
  return principal ? std::optional(*principal) : std::nullopt;
}

std::vector<KeyInfo> KeyStore::list() const { return keys()->infos; }

Result<std::shared_ptr<const KeyStore::Keys>> KeyStore::read() {
  FATHOM_RETURN_IF_ERROR(database_.check());
  FATHOM_TRY(Statement rows, database_.prepare("SELECT name, hash, created, expires, revoked, requests_per_minute, "
                                               "tokens_per_minute, concurrent, budget_usd, models FROM keys "
                                               "ORDER BY created, rowid"));
  auto keys = std::make_shared<Keys>();
  while (true) {
    FATHOM_TRY(const bool more, rows.next());
    if (!more) break;
    KeyInfo info{.name = rows.text(0),
                 .created = rows.integer(2),
                 .revoked = rows.optional_integer(4),
                 .settings = {.expires = rows.optional_integer(3),
                              .limits = {.requests_per_minute = rows.optional_integer(5),
                                         .tokens_per_minute = rows.optional_integer(6),
                                         .concurrent = rows.optional_integer(7),
                                         .budget_usd = rows.optional_real(8)}}};
    const std::string source = fmt::format("{}: models of key {}", database_.path(), in_quotes(info.name));
    FATHOM_TRY(info.settings.limits.models, models_from(rows.text(9), source));
    if (const Status valid = check_settings(info.settings); !valid)
      return fail("{}: key {}: {}", database_.path(), in_quotes(info.name), valid.error().message);
    const std::string hash = rows.text(1);
    Digest digest{};
    if (hash.size() != digest.size())
      return fail("{}: key {} has a hash of {} bytes, not {}", database_.path(), in_quotes(info.name), hash.size(),
                  digest.size());
    std::memcpy(digest.data(), hash.data(), digest.size());
    keys->by_hash.emplace(digest, keys->infos.size());
    keys->infos.push_back(std::move(info));
  }
  return keys;
}

Status KeyStore::read_again() {
  // Before the rows: a change that comes between is then read once too often, not missed.
  FATHOM_TRY(version_, database_.integer("PRAGMA data_version"));
  FATHOM_TRY(auto keys, read());
  const std::lock_guard lock(mutex_);
  keys_ = std::move(keys);
  return {};
}

Status KeyStore::refresh() {
  const std::lock_guard lock(database_mutex_);
  if (!database_.check_in_place()) {
    FATHOM_TRY(database_, Database::open(database_.path(), kKeyFormat,
                                         mode_ == Database::Mode::kRead ? mode_ : Database::Mode::kWrite));
    return read_again();
  }
  FATHOM_TRY(const int64_t version, database_.integer("PRAGMA data_version"));
  return version == version_ ? Status{} : read_again();
}

Result<std::string> KeyStore::add(const std::string& name, const KeySettings& settings, int64_t now) {
  if (!valid_name(name))
    return fail("{}: no name for a key: 1 to {} letters, digits and ._@+- are", in_quotes(name), kMaxName);
  FATHOM_RETURN_IF_ERROR(check_settings(settings));
  FATHOM_TRY(std::string key, random_key());
  const Digest digest = sha256(key);
  const std::lock_guard lock(database_mutex_);
  const Status written = database_.transact([&]() -> Status {
    FATHOM_TRY(Statement there, database_.prepare("SELECT 1 FROM keys WHERE name = ?"));
    there.bind(name);
    FATHOM_TRY(const bool taken, there.next());
    if (taken)
      return fail(
          "{}: there is a key named {}. Names are not used again, not those of revoked keys either: the ledger "
          "counts by them",
          database_.path(), name);
    const KeyLimits& limits = settings.limits;
    FATHOM_TRY(
        Statement insert,
        database_.prepare("INSERT INTO keys (name, hash, created, expires, requests_per_minute, "
                          "tokens_per_minute, concurrent, budget_usd, models) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    return insert.run(name, std::span<const uint8_t>(digest), now, settings.expires, limits.requests_per_minute,
                      limits.tokens_per_minute, limits.concurrent, limits.budget_usd, models_text(limits.models));
  });
  FATHOM_RETURN_IF_ERROR(written);
  FATHOM_RETURN_IF_ERROR(read_again());
  return key;
}

Result<KeyInfo> KeyStore::info(const std::string& name) const {
  const auto all = keys();
  for (const KeyInfo& info : all->infos)
    if (info.name == name) return info;
  return fail("{}: no key named {}; `fathom keys list` shows those that are there", database_.path(), in_quotes(name));
}

Status KeyStore::revoke(const std::string& name, int64_t now) {
  const std::lock_guard lock(database_mutex_);
  FATHOM_RETURN_IF_ERROR(read_again());
  FATHOM_TRY(const KeyInfo found, info(name));
  if (found.revoked) return {};
  const Status written = database_.transact([&]() -> Status {
    FATHOM_TRY(Statement update, database_.prepare("UPDATE keys SET revoked = ? WHERE name = ? AND revoked IS NULL"));
    return update.run(now, name);
  });
  FATHOM_RETURN_IF_ERROR(written);
  return read_again();
}

Status KeyStore::change(const std::string& name, const std::function<void(KeySettings&)>& edit) {
  const std::lock_guard lock(database_mutex_);
  const Status written = database_.transact([&]() -> Status {
    FATHOM_RETURN_IF_ERROR(read_again());  // what another process changed meanwhile stays
    FATHOM_TRY(KeyInfo found, info(name));
    edit(found.settings);
    FATHOM_RETURN_IF_ERROR(check_settings(found.settings));
    const KeyLimits& limits = found.settings.limits;
    FATHOM_TRY(Statement update,
               database_.prepare("UPDATE keys SET expires = ?, requests_per_minute = ?, tokens_per_minute = ?, "
                                 "concurrent = ?, budget_usd = ?, models = ? WHERE name = ?"));
    return update.run(found.settings.expires, limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent,
                      limits.budget_usd, models_text(limits.models), name);
  });
  FATHOM_RETURN_IF_ERROR(written);
  return read_again();
}

}  // namespace fathom
