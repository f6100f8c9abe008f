// Keys: found by their hash alone, kept nowhere, changed by several processes, on files that are damaged or not ours.
#include "serve/key_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "serve/support.h"
#include "support/random.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using Mode = Database::Mode;

constexpr int64_t kNow = 1'760'000'000;

std::unique_ptr<KeyStore> open_keys(const fs::path& path, Mode mode = Mode::kCreate) {
  auto store = KeyStore::open(path, mode);
  EXPECT_TRUE(store) << store.error().message;
  return store ? std::move(*store) : nullptr;
}

std::string add(KeyStore& store, const std::string& name, const KeySettings& settings = {}) {
  const auto key = store.add(name, settings, kNow);
  EXPECT_TRUE(key) << key.error().message;
  return key.value_or("");
}

std::string open_error(const fs::path& path, Mode mode = Mode::kCreate) {
  const auto store = KeyStore::open(path, mode);
  EXPECT_FALSE(store);
  return store ? "" : store.error().message;
}

TEST(KeyStore, FindsAKeyAndNothingLikeIt) {
  const TempDir folder;
  const auto store = open_keys(folder / "keys.db");
  const std::string key = add(*store, "alice");
  const std::string other = add(*store, "bob");
  EXPECT_THAT(key, MatchesRegex("sk-fathom-[A-Za-z0-9_-]{43}"));
  EXPECT_NE(key, other);
  ASSERT_TRUE(store->find(key, kNow));
  EXPECT_EQ(store->find(key, kNow)->name, "alice");
  EXPECT_EQ(store->find(other, kNow)->name, "bob");
  for (size_t i = 0; i < key.size(); ++i) {
    std::string wrong = key;
    wrong[i] = wrong[i] == 'x' ? 'y' : 'x';
    EXPECT_EQ(store->find(wrong, kNow).error(), KeyProblem::kUnknown);
  }
  for (const std::string& wrong : {std::string(), std::string("sk-fathom-"), key + "A", key.substr(1), key + '\0',
                                   std::string(100'000, 'x'), std::string("\xff\xfe\x00", 3)})
    EXPECT_EQ(store->find(wrong, kNow).error(), KeyProblem::kUnknown);
}

TEST(KeyStore, TheKeyIsInNoFileAndTheFileIsItsOwnersAlone) {
  const TempDir folder;
  const auto store = open_keys(folder / "keys.db");
  const std::string key = add(*store, "alice");
  for (const auto& entry : fs::directory_iterator(folder.path()))
    EXPECT_THAT(file_text(entry.path()), Not(HasSubstr(key.substr(10, 20)))) << entry.path();
  struct stat info {};
  ASSERT_EQ(stat((folder / "keys.db").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(query(folder / "keys.db", "SELECT length(hash), typeof(hash) FROM keys"),
            std::vector<std::string>{"32|blob"});
}

TEST(KeyStore, KeysDiffer) {
  const TempDir folder;
  const auto store = open_keys(folder / "keys.db");
  std::set<std::string> keys;
  std::vector<int> counts(256);
  for (int i = 0; i < 50; ++i) {
    keys.insert(add(*store, fmt::format("k{}", i)));
    for (const char c : *keys.rbegin()) ++counts[static_cast<uint8_t>(c)];
  }
  EXPECT_EQ(keys.size(), 50u);
  EXPECT_EQ(store->list().size(), 50u);
}

TEST(KeyStore, ExpiryAndRevocation) {
  const TempDir folder;
  const auto store = open_keys(folder / "keys.db");
  const std::string key = add(*store, "a", {.expires = kNow + 100});
  EXPECT_TRUE(store->find(key, kNow + 99));
  EXPECT_EQ(store->find(key, kNow + 100).error(), KeyProblem::kExpired);
  ASSERT_TRUE(store->revoke("a", kNow + 5));
  EXPECT_EQ(store->find(key, kNow).error(), KeyProblem::kRevoked);
  EXPECT_EQ(store->find(key, kNow + 1000).error(), KeyProblem::kRevoked);
  ASSERT_TRUE(store->revoke("a", kNow + 50)) << "again is no failure";
  EXPECT_EQ(store->list()[0].revoked, kNow + 5);
  EXPECT_THAT(store->revoke("b", kNow).error().message, AllOf(HasSubstr("no key named \"b\""), HasSubstr("keys list")));
  for (const KeyProblem problem : {KeyProblem::kUnknown, KeyProblem::kExpired, KeyProblem::kRevoked})
    EXPECT_EQ(api_error(problem).status, 401);
  EXPECT_NE(api_error(KeyProblem::kExpired).code, api_error(KeyProblem::kRevoked).code);
}

TEST(KeyStore, SettingsSurviveARestart) {
  const TempDir folder;
  const KeySettings settings{.expires = kNow + 7,
                             .limits = {.requests_per_minute = 3,
                                        .tokens_per_minute = int64_t{1} << 40,
                                        .concurrent = 2,
                                        .budget_usd = 0.1,
                                        .models = {"a \"quoted\" model", "модель"}}};
  std::string key = add(*open_keys(folder / "keys.db"), "alice", settings);
  const auto store = open_keys(folder / "keys.db", Mode::kRead);
  const auto principal = store->find(key, kNow);
  ASSERT_TRUE(principal);
  EXPECT_EQ(principal->name, "alice");
  EXPECT_EQ(principal->limits.requests_per_minute, 3);
  EXPECT_EQ(principal->limits.tokens_per_minute, int64_t{1} << 40);
  EXPECT_EQ(principal->limits.concurrent, 2);
  EXPECT_EQ(principal->limits.budget_usd, 0.1);
  EXPECT_EQ(principal->limits.models, settings.limits.models);
  EXPECT_TRUE(principal->limits.allows("модель"));
  EXPECT_FALSE(principal->limits.allows("a"));
  EXPECT_TRUE(KeyLimits{}.allows("anything"));
  EXPECT_EQ(store->list()[0].settings.expires, kNow + 7);
  EXPECT_EQ(store->list()[0].created, kNow);
}

TEST(KeyStore, ChangeLeavesTheRest) {
  const TempDir folder;
  const auto store = open_keys(folder / "keys.db");
  const std::string key = add(*store, "a", {.expires = kNow + 9, .limits = {.concurrent = 2, .budget_usd = 5}});
  ASSERT_TRUE(store->change("a", [](KeySettings& s) {
    s.limits.concurrent.reset();
    s.limits.requests_per_minute = 10;
  }));
  const KeyInfo info = store->list()[0];
  EXPECT_EQ(info.settings.limits.concurrent, std::nullopt);
  EXPECT_EQ(info.settings.limits.requests_per_minute, 10);
  EXPECT_EQ(info.settings.limits.budget_usd, 5);
  EXPECT_EQ(info.settings.expires, kNow + 9);
  EXPECT_TRUE(store->find(key, kNow)) << "the same key as before";
  const auto wrong = store->change("a", [](KeySettings& s) {
    s.limits.concurrent = 0;
    s.limits.budget_usd = -1;
    s.limits.tokens_per_minute = -5;
  });
  EXPECT_THAT(wrong.error().message,
              AllOf(HasSubstr("concurrent requests: 0"), HasSubstr("budget: -1"), HasSubstr("tokens per minute: -5")))
      << "all problems at once";
  EXPECT_EQ(store->list()[0].settings.limits.budget_usd, 5);
}

TEST(KeyStore, NamesAreCheckedAndNeverUsedAgain) {
  const TempDir folder;
  const auto store = open_keys(folder / "keys.db");
  for (const std::string& name :
       {std::string(), std::string("a b"), std::string("a'; DROP TABLE keys; --"), std::string("a\n"),
        std::string("\xff"), std::string(65, 'a'), std::string("a\0b", 3)})
    EXPECT_FALSE(store->add(name, {}, kNow)) << name;
  EXPECT_TRUE(store->add(std::string(64, 'a'), {}, kNow));
  add(*store, "team@x.org");
  ASSERT_TRUE(store->revoke("team@x.org", kNow));
  EXPECT_THAT(store->add("team@x.org", {}, kNow).error().message, HasSubstr("not used again"));
  EXPECT_FALSE(store->add("b", {.limits = {.budget_usd = NAN}}, kNow));
  EXPECT_EQ(store->list().size(), 2u);
}

TEST(KeyStore, SqlInTextIsText) {
  const TempDir folder;
  const auto store = open_keys(folder / "keys.db");
  const std::string evil = "'); DELETE FROM keys; --";
  add(*store, "a", {.limits = {.models = {evil}}});
  EXPECT_THAT(store->revoke(evil, kNow).error().message, HasSubstr("no key named"));
  EXPECT_EQ(store->list()[0].settings.limits.models, std::vector<std::string>{evil});
}

// --- other processes

TEST(KeyStore, RefreshSeesWhatOthersChanged) {
  const TempDir folder;
  const auto admin = open_keys(folder / "keys.db");
  const std::string key = add(*admin, "a");
  const auto server = open_keys(folder / "keys.db", Mode::kRead);
  ASSERT_TRUE(admin->revoke("a", kNow));
  EXPECT_TRUE(server->find(key, kNow));
  ASSERT_TRUE(server->refresh());
  EXPECT_EQ(server->find(key, kNow).error(), KeyProblem::kRevoked);
  for (int i = 0; i < 20; ++i) {
    const std::string next = add(*admin, fmt::format("k{}", i));
    ASSERT_TRUE(server->refresh());
    EXPECT_TRUE(server->find(next, kNow)) << "however fast one follows the other";
  }
}

TEST(KeyStore, RefreshSeesAReplacedFile) {
  const TempDir folder;
  const std::string old_key = add(*open_keys(folder / "keys.db"), "old");
  const std::string new_key = add(*open_keys(folder / "new.db"), "new");
  const auto server = open_keys(folder / "keys.db", Mode::kRead);
  fs::rename(folder / "new.db", folder / "keys.db");
  ASSERT_TRUE(server->refresh());
  EXPECT_FALSE(server->find(old_key, kNow));
  EXPECT_TRUE(server->find(new_key, kNow));
}

TEST(KeyStore, WhatWasReadHoldsOnWhenTheFileIsLostOrDamaged) {
  const TempDir folder;
  const fs::path path = folder / "keys.db";
  const std::string key = add(*open_keys(path), "a");
  const std::string good = file_text(path);
  const auto server = open_keys(path, Mode::kRead);
  fs::remove(path);
  EXPECT_THAT(server->refresh().error().message, AllOf(HasSubstr(path.string()), HasSubstr("No such file")));
  EXPECT_TRUE(server->find(key, kNow));
  write_text(path, std::string(5000, 'x'));
  EXPECT_THAT(server->refresh().error().message, HasSubstr("no SQLite database"));
  EXPECT_TRUE(server->find(key, kNow));
  EXPECT_EQ(file_text(path), std::string(5000, 'x'));
  write_text(path, good);
  EXPECT_TRUE(server->refresh());
  EXPECT_TRUE(server->find(key, kNow));
}

TEST(KeyStore, EightThreads) {
  const TempDir folder;
  const auto store = open_keys(folder / "keys.db");
  std::vector<std::string> keys;
  for (int i = 0; i < 8; ++i) keys.push_back(add(*store, fmt::format("k{}", i)));
  std::atomic<int> wrong = 0, found = 0;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const auto principal = store->find(keys[t], kNow);
        principal ? ++found : ++wrong;
        if (principal && principal->name != fmt::format("k{}", t)) ++wrong;
        if (i % 40 == 0 && !store->add(fmt::format("t{}-{}", t, i), {}, kNow)) ++wrong;
        if (i % 40 == 20 && !store->change(fmt::format("k{}", t), [&](KeySettings& s) { s.limits.concurrent = i + 1; }))
          ++wrong;
        if (i % 20 == 0 && !store->refresh()) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(found, 1600);
  EXPECT_EQ(store->list().size(), 48u);
}

TEST(KeyStore, TwoStoresOfOneFileLoseNoChange) {
  const TempDir folder;
  std::atomic<int> wrong = 0;
  const auto a = open_keys(folder / "keys.db"), b = open_keys(folder / "keys.db");
  add(*a, "shared", {.limits = {.requests_per_minute = 1, .tokens_per_minute = 1}});
  const auto count = [&](KeyStore& store, std::optional<int64_t> KeyLimits::*limit) {
    for (int i = 0; i < 20; ++i)
      if (!store.change("shared", [&](KeySettings& s) { s.limits.*limit = *(s.limits.*limit) + 1; })) ++wrong;
  };
  std::thread first([&] { count(*a, &KeyLimits::requests_per_minute); });
  std::thread second([&] { count(*b, &KeyLimits::tokens_per_minute); });
  first.join(), second.join();
  ASSERT_TRUE(a->refresh());
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(a->list()[0].settings.limits.requests_per_minute, 21);
  EXPECT_EQ(a->list()[0].settings.limits.tokens_per_minute, 21);
}

// --- files that are not as they should be

TEST(KeyStore, FilesThatAreNoKeyStoreAreToldAndLeftAlone) {
  const TempDir folder;
  const fs::path path = folder / "keys.db";
  EXPECT_THAT(open_error(path, Mode::kRead), AllOf(HasSubstr(path.string()), HasSubstr("No such file")));
  EXPECT_FALSE(fs::exists(path));
  EXPECT_THAT(open_error(folder / "none" / "keys.db"), HasSubstr("No such file or directory"));
  EXPECT_THAT(open_error(folder.path()), HasSubstr("no regular file"));

  write_text(path, "");
  EXPECT_THAT(open_error(path, Mode::kRead), HasSubstr("an empty file, no key store"));

  write_text(path, "name,key\nalice,sk-1\n" + std::string(2000, ' '));
  const std::string csv = file_text(path);
  EXPECT_THAT(open_error(path),
              AllOf(HasSubstr(path.string()), HasSubstr("no SQLite database"), HasSubstr("left as it is")));
  EXPECT_EQ(file_text(path), csv);

  fs::remove(path);
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "CREATE TABLE photos (x)", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(other);
  EXPECT_THAT(open_error(path), AllOf(HasSubstr("something else"), HasSubstr("a key store")));
  EXPECT_EQ(query(path, "SELECT name FROM sqlite_schema"), std::vector<std::string>{"photos"});
}

TEST(KeyStore, AnotherSchemaVersionIsRefused) {
  const TempDir folder;
  const fs::path path = folder / "keys.db";
  add(*open_keys(path), "a");
  query(path, "PRAGMA user_version = 2");
  for (const Mode mode : {Mode::kRead, Mode::kWrite, Mode::kCreate})
    EXPECT_THAT(open_error(path, mode), AllOf(HasSubstr("schema version 2"), HasSubstr("reads version 1")));
  EXPECT_EQ(query(path, "SELECT name FROM keys"), std::vector<std::string>{"a"});
}

// Every byte of a page changed, one page after the other, and the file cut: an error in words or the right answer.
TEST(KeyStore, DamageGivesAnErrorOrTheRightKeys) {
  const TempDir folder;
  const fs::path path = folder / "keys.db";
  {
    const auto store = open_keys(path);
    for (int i = 0; i < 60; ++i) add(*store, fmt::format("key{}", i), {.limits = {.models = {std::string(300, 'm')}}});
  }
  const std::string good = file_text(path);
  ASSERT_GT(good.size(), 5u * 4096);
  TestRandom random(1);
  int refused = 0;
  for (int round = 0; round < 120; ++round) {
    std::string bad = good;
    if (round % 3 == 0) {
      bad.resize(static_cast<size_t>(random.below(static_cast<int64_t>(good.size()) - 1)) + 1);
    } else if (round % 3 == 1) {
      const auto page = static_cast<size_t>(random.below(static_cast<int64_t>(good.size() / 4096)));
      for (size_t i = 0; i < 4096; ++i) bad[page * 4096 + i] = static_cast<char>(random.bits());
    } else {
      for (int i = 0; i < 40; ++i)
        bad[static_cast<size_t>(random.below(static_cast<int64_t>(good.size())))] = static_cast<char>(random.bits());
    }
    fs::remove(path);
    write_text(path, bad);
    const auto store = KeyStore::open(path, Mode::kRead);
    if (!store) {
      ++refused;
      EXPECT_THAT(store.error().message, HasSubstr(path.string()));
      EXPECT_EQ(file_text(path), bad) << "left as it is";
    }
  }
  EXPECT_GT(refused, 80);
  RecordProperty("refused", refused);
}

TEST(KeyStore, AReadOnlyFolderIsTold) {
  const TempDir folder;
  const ReadOnlyFolder closed(folder.path());
  EXPECT_THAT(open_error(folder / "keys.db"), AllOf(HasSubstr("cannot be made"), HasSubstr("Permission denied")));
}

TEST(KeyStore, AReadOnlyFileCanBeReadAndNotChanged) {
  const TempDir folder;
  const fs::path path = folder / "keys.db";
  const std::string key = add(*open_keys(path), "a");
  fs::permissions(path, fs::perms(0444));
  const ReadOnlyFolder closed(folder.path());
  EXPECT_TRUE(open_keys(path, Mode::kRead)->find(key, kNow));
  const auto store = open_keys(path, Mode::kWrite);
  EXPECT_THAT(store->revoke("a", kNow).error().message,
              AllOf(HasSubstr(path.string()), HasSubstr("must be writable for this user")));
  EXPECT_TRUE(store->find(key, kNow)) << "not half revoked";
}

TEST(KeyStore, AFullDiskChangesNothing) {
  const TempDir folder;
  const auto store = open_keys(folder / "keys.db");
  const std::string key = add(*store, "a");
  {
    const FullDisk full(1000);
    EXPECT_THAT(store->add("b", {}, kNow).error().message, HasSubstr((folder / "keys.db").string()));
    EXPECT_TRUE(store->find(key, kNow));
  }
  EXPECT_TRUE(store->add("b", {}, kNow)) << "when there is room again, it goes on";
  EXPECT_EQ(query(folder / "keys.db", "PRAGMA integrity_check"), std::vector<std::string>{"ok"});
}

}  // namespace
}  // namespace fathom
