// The ledger: every row whole, whatever happens to the disk or the process; sums of what keys have spent.
#include "serve/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "serve/support.h"
#include "support/random.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using namespace test;
using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using Rows = std::vector<std::string>;

constexpr auto kLong = std::chrono::milliseconds(20'000);

LedgerRow row(int64_t i, const std::string& key = "alice") {
  return {.time_ms = 1'760'000'000'000 + i,
          .request_id = fmt::format("req-{}", i),
          .key = key,
          .model = "fathom-nano",
          .endpoint = "/v1/chat/completions",
          .status = 200,
          .finish_reason = "stop",
          .usage = {.prompt_tokens = 3 * i, .cached_tokens = i, .completion_tokens = 2 * i, .reasoning_tokens = i},
          .choices = 1,
          .drafted = i,
          .accepted = i / 2,
          .queue_ms = 0.5,
          .total_ms = 100,
          .first_token_ms = 10,
          .first_answer_ms = 20,
          .price_usd = 0.25,
          .request_text = "what was asked",
          .answer_text = "what was answered"};
}

std::unique_ptr<Ledger> open_ledger(LedgerSettings settings) {
  auto ledger = Ledger::open(settings);
  EXPECT_TRUE(ledger) << ledger.error().message;
  return ledger ? std::move(*ledger) : nullptr;
}
std::unique_ptr<Ledger> open_ledger(const fs::path& file) { return open_ledger(LedgerSettings{.file = file}); }

std::string ledger_error(const fs::path& file) {
  const auto ledger = Ledger::open({.file = file});
  EXPECT_FALSE(ledger);
  return ledger ? "" : ledger.error().message;
}

TEST(Ledger, ARowIsWhatWasAdded) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  const auto ledger = open_ledger(file);
  ledger->add(row(8));
  LedgerRow refused{.time_ms = 5, .request_id = "r", .endpoint = "/v1/models", .status = 401};
  refused.aborted = true;
  ledger->add(refused);
  ASSERT_TRUE(ledger->flush(kLong));
  EXPECT_EQ(query(file, "SELECT * FROM requests"),
            (Rows{"1760000000008|req-8|alice|fathom-nano|/v1/chat/completions|200|0|stop|24|8|16|8|1|8|4|0.5|10.0|20.0|"
                  "100.0|0.25|null|null",
                  "5|r|||/v1/models|401|1||0|0|0|0|0|0|0|0.0|null|null|0.0|0.0|null|null"}));
  EXPECT_EQ(ledger->stats().written, 2);
  EXPECT_EQ(ledger->stats().queued, 0);
  EXPECT_EQ(ledger->stats().dropped, 0);
  struct stat info {};
  ASSERT_EQ(stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST(Ledger, TextOnlyWhereItIsAskedFor) {
  const TempDir folder;
  {
    open_ledger(folder / "without")->add(row(1));
    open_ledger({.file = folder / "with", .text = true})->add(row(1));
  }
  EXPECT_THAT(file_text(folder / "without"), Not(HasSubstr("what was")));
  EXPECT_EQ(query(folder / "with", "SELECT request_text, answer_text FROM requests"),
            Rows{"what was asked|what was answered"});
}

TEST(Ledger, TextOfAnyBytesIsKeptAsItIs) {
  const TempDir folder;
  LedgerRow odd = row(1);
  odd.request_text = std::string("a\0b'); DROP TABLE requests; --\xff\n", 32);
  odd.answer_text.clear();
  open_ledger({.file = folder / "ledger.db", .text = true})->add(odd);
  EXPECT_EQ(query(folder / "ledger.db", "SELECT hex(request_text), answer_text IS NULL FROM requests"),
            Rows{"61006227293B2044524F50205441424C452072657175657374733B202D2DFF0A|0"});
}

// --- spending

TEST(Ledger, SpendingIsCountedAtOnceAndOutlivesARestart) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  {
    const auto ledger = open_ledger(file);
    EXPECT_EQ(ledger->spent_usd("alice"), 0);
    for (int64_t i = 0; i < 7; ++i) {
      ledger->add(row(i));
      EXPECT_EQ(ledger->spent_usd("alice"), 0.25 * static_cast<double>(i + 1));
    }
    ledger->add(row(7, "bob"));
    ASSERT_TRUE(ledger->flush(kLong));
    EXPECT_EQ(ledger->spent_usd("alice"), 1.75);
  }
  query(file, "DELETE FROM requests");
  const auto ledger = open_ledger(file);
  EXPECT_EQ(ledger->spent_usd("alice"), 1.75) << "also when old rows are gone";
  EXPECT_EQ(ledger->spent_usd("bob"), 0.25);
  EXPECT_EQ(ledger->spent_usd("nobody"), 0);
}

TEST(Ledger, TwoServersCountTogether) {
  const TempDir folder;
  const auto a = open_ledger(folder / "ledger.db"), b = open_ledger(folder / "ledger.db");
  for (int64_t i = 0; i < 10; ++i) {
    a->add(row(i));
    b->add(row(i));
  }
  ASSERT_TRUE(a->flush(kLong));
  ASSERT_TRUE(b->flush(kLong));
  a->add(row(10));
  ASSERT_TRUE(a->flush(kLong));
  EXPECT_EQ(a->spent_usd("alice"), 21 * 0.25);
  EXPECT_EQ(query(folder / "ledger.db", "SELECT count(*) FROM requests"), Rows{"21"});
}

TEST(Ledger, EightThreads) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  constexpr int64_t kRows = 500;
  {
    const auto ledger = open_ledger(file);
    std::vector<std::thread> threads;
    for (int64_t t = 0; t < 8; ++t)
      threads.emplace_back([&, t] {
        for (int64_t i = 0; i < kRows; ++i) {
          ledger->add(row(t * kRows + i, fmt::format("key{}", t)));
          if (i % 50 == 0) {
            ledger->stats();
            EXPECT_GE(ledger->spent_usd(fmt::format("key{}", t)), 0.25 * static_cast<double>(i));
          }
        }
      });
    for (std::thread& thread : threads) thread.join();
    for (int64_t t = 0; t < 8; ++t) EXPECT_EQ(ledger->spent_usd(fmt::format("key{}", t)), 0.25 * kRows);
  }
  EXPECT_EQ(
      query(file, "SELECT count(*), count(DISTINCT request_id), sum(prompt_tokens = 3 * cached_tokens) FROM requests"),
      Rows{"4000|4000|4000"});
  EXPECT_EQ(query(file, "SELECT count(*), min(usd), max(usd) FROM spent"), Rows{"8|125.0|125.0"});
}

// --- a disk that refuses

TEST(Ledger, AFullDiskCostsRowsAndNothingElse) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  const auto ledger = open_ledger({.file = file, .queue_bytes = 100'000, .retry = 5ms});
  ledger->add(row(0));
  ASSERT_TRUE(ledger->flush(kLong));
  {
    const FullDisk full(20'000);
    for (int64_t i = 1; i <= 2000; ++i) ledger->add(row(i));
    EXPECT_FALSE(ledger->flush(100ms));
    const LedgerStats stats = ledger->stats();
    EXPECT_GT(stats.errors, 1) << "tried again";
    EXPECT_GT(stats.dropped, 500) << "more than the queue holds";
    EXPECT_GT(stats.queued, 100);
    EXPECT_EQ(stats.written + stats.queued + stats.dropped, 2001);
    EXPECT_THAT(stats.last_error, HasSubstr(file.string()));
    EXPECT_EQ(ledger->spent_usd("alice"), 2001 * 0.25) << "dropped rows are paid for too";
  }
  ASSERT_TRUE(ledger->flush(kLong)) << "when there is room again, it goes on";
  ledger->add(row(3000));
  ASSERT_TRUE(ledger->flush(kLong));
  const LedgerStats stats = ledger->stats();
  EXPECT_EQ(stats.written + stats.dropped, 2002);
  EXPECT_EQ(stats.queued, 0);
  EXPECT_EQ(query(file, "SELECT count(*) FROM requests"), Rows{std::to_string(stats.written)});
  EXPECT_EQ(query(file, "SELECT usd FROM spent"), Rows{"500.5"});
  EXPECT_EQ(query(file, "PRAGMA integrity_check"), Rows{"ok"});
}

// A file system of 200 KB of its own, where the system lets a child make one: the real thing, beside the limit above.
enum Exit { kWell, kNoFileSystem, kNotWritten, kNotTold, kNotAgain, kNotSound };

Exit fill_a_file_system(const fs::path& folder) {
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("none", folder.c_str(), "tmpfs", 0, "size=200k") != 0)
    return kNoFileSystem;
  const fs::path file = folder / "ledger.db";
  auto ledger = Ledger::open({.file = file, .retry = 5ms});
  if (!ledger) return kNotWritten;
  (*ledger)->add(row(0));
  if (!(*ledger)->flush(kLong)) return kNotWritten;
  write_text(folder / "filler", std::string(1 << 20, 'x'));  // as much of it as there is room for
  for (int64_t i = 1; i <= 500; ++i) (*ledger)->add(row(i));
  if ((*ledger)->flush(100ms)) return kNotTold;
  const LedgerStats full = (*ledger)->stats();
  if (full.errors < 2 || full.last_error.find("Make room on the disk") == std::string::npos) return kNotTold;
  fs::remove(folder / "filler");
  if (!(*ledger)->flush(kLong) || (*ledger)->stats().written != 501) return kNotAgain;
  return query(file, "PRAGMA integrity_check") == Rows{"ok"} && query(file, "SELECT usd FROM spent") == Rows{"125.25"}
             ? kWell
             : kNotSound;
}

TEST(Ledger, AFullFileSystem) {
  const TempDir folder;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(fill_a_file_system(folder.path()));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNoFileSystem) GTEST_SKIP() << "only root may make a file system";
  EXPECT_EQ(WEXITSTATUS(status), kWell);
}

TEST(Ledger, ADiskThatStaysFullEndsTheProcessAllTheSame) {
  const TempDir folder;
  auto ledger = open_ledger({.file = folder / "ledger.db", .retry = 100s});
  const FullDisk full(10);
  for (int64_t i = 0; i < 100; ++i) ledger->add(row(i));
  EXPECT_FALSE(ledger->flush(50ms));
  const auto start = std::chrono::steady_clock::now();
  ledger.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
}

TEST(Ledger, ARowLargerThanTheQueueIsDroppedAndPaidFor) {
  const TempDir folder;
  {
    const auto ledger = open_ledger({.file = folder / "ledger.db", .text = true, .queue_bytes = 10'000});
    LedgerRow large = row(1);
    large.request_text = std::string(10'000, 'x');
    ledger->add(large);
    ASSERT_TRUE(ledger->flush(kLong));
    EXPECT_EQ(ledger->stats().dropped, 1);
    ledger->add(row(2));
    ASSERT_TRUE(ledger->flush(kLong));
    EXPECT_EQ(ledger->stats().written, 1);
  }
  EXPECT_EQ(query(folder / "ledger.db", "SELECT usd FROM spent"), Rows{"0.5"});
}

TEST(Ledger, AFileThatIsDeletedWhileInUseIsTold) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  const auto ledger = open_ledger({.file = file, .retry = 5ms});
  fs::rename(file, folder / "moved.db");
  ledger->add(row(1));
  EXPECT_FALSE(ledger->flush(50ms));
  EXPECT_THAT(ledger->stats().last_error, AllOf(HasSubstr("moved or deleted while in use"), HasSubstr(file.string())));
  fs::rename(folder / "moved.db", file);
  EXPECT_TRUE(ledger->flush(kLong)) << "put back";
  EXPECT_EQ(ledger->stats().written, 1);
}

TEST(Ledger, AnotherProgramsLockIsWaitedFor) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  const auto ledger = open_ledger({.file = file, .retry = 5ms});
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(file.c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  const auto start = std::chrono::steady_clock::now();
  ledger->add(row(1));
  EXPECT_EQ(ledger->spent_usd("alice"), 0.25);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 1s) << "who adds does not wait";
  EXPECT_FALSE(ledger->flush(50ms));
  ASSERT_EQ(sqlite3_exec(other, "COMMIT", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(other);
  EXPECT_TRUE(ledger->flush(kLong));
  EXPECT_EQ(ledger->stats().dropped, 0);
}

// --- files that are not as they should be

TEST(Ledger, AReadOnlyFolderIsTold) {
  const TempDir folder;
  const ReadOnlyFolder closed(folder.path());
  EXPECT_THAT(ledger_error(folder / "ledger.db"), AllOf(HasSubstr("cannot be made"), HasSubstr("Permission denied")));
}

TEST(Ledger, AReadOnlyFileIsTold) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  open_ledger(file)->add(row(1));
  fs::permissions(file, fs::perms(0444));
  const ReadOnlyFolder closed(folder.path());
  EXPECT_THAT(ledger_error(file), AllOf(HasSubstr(file.string()), HasSubstr("must be writable")));
}

TEST(Ledger, FilesThatAreNoLedgerAreToldAndLeftAlone) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  write_text(file, std::string(9000, 'z'));
  EXPECT_THAT(ledger_error(file), AllOf(HasSubstr("no SQLite database"), HasSubstr("left as it is")));
  EXPECT_EQ(file_text(file), std::string(9000, 'z'));
  fs::remove(file);
  open_ledger(file)->add(row(1));
  query(file, "PRAGMA user_version = 7");
  EXPECT_THAT(ledger_error(file), AllOf(HasSubstr("schema version 7"), HasSubstr("reads version 1")));
  query(file, "PRAGMA user_version = 1; PRAGMA application_id = 1");
  EXPECT_THAT(ledger_error(file), HasSubstr("something else"));
  EXPECT_EQ(query(file, "SELECT count(*) FROM requests"), Rows{"1"});
}

// Overwrites the page where a table begins.
void damage_root(const fs::path& file, const std::string& table) {
  const size_t page = std::stoul(query(file, "SELECT rootpage FROM sqlite_schema WHERE name = '" + table + "'")[0]);
  std::string bad = file_text(file);
  for (size_t i = (page - 1) * 4096; i < page * 4096; ++i) bad[i] = static_cast<char>(i * 7);
  write_text(file, bad);
}

TEST(Ledger, DamagedSumsAreToldAtTheStart) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  open_ledger(file)->add(row(1));
  damage_root(file, "spent");
  const std::string bad = file_text(file);
  EXPECT_THAT(ledger_error(file), AllOf(HasSubstr(file.string()), HasSubstr("damaged"), HasSubstr("left as it is")));
  EXPECT_EQ(file_text(file), bad);
}

TEST(Ledger, DamagedRowsAreToldWhenTheyAreMet) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  open_ledger(file)->add(row(1));
  damage_root(file, "requests");
  const auto ledger = open_ledger({.file = file, .retry = 5ms});
  ledger->add(row(2));
  EXPECT_FALSE(ledger->flush(100ms));
  EXPECT_EQ(ledger->stats().written, 0);
  EXPECT_EQ(ledger->stats().queued, 1);
  EXPECT_EQ(ledger->spent_usd("alice"), 0.5) << "budgets hold";
  EXPECT_THAT(ledger->stats().last_error, AllOf(HasSubstr("damaged"), HasSubstr("left as it is")));
}

// --- kill -9

// Adds as fast as it can until it is killed; tells `ready` when the first row is on disk.
[[noreturn]] void add_for_ever(const fs::path& file, int64_t round, int ready) {
  auto ledger = Ledger::open({.file = file, .queue_bytes = 1'000'000});
  if (!ledger) _exit(1);
  for (int64_t i = 0;; ++i) {
    (*ledger)->add(row(round * 1'000'000 + i));
    if (i % 20 == 0) (*ledger)->flush(kLong);
    if (i == 0 && write(ready, "!", 1) != 1) _exit(1);
  }
}

TEST(Ledger, KilledThirtyTimesWhileWriting) {
  const TempDir folder;
  const fs::path file = folder / "ledger.db";
  TestRandom random(4);
  int64_t before = 0, recovered = 0;
  for (int64_t round = 0; round < 30; ++round) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) add_for_ever(file, round, ready[1]);
    close(ready[1]);
    char told = 0;
    EXPECT_EQ(read(ready[0], &told, 1), 1) << "the child ended by itself";
    close(ready[0]);
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(20'000)));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself";
    const fs::path wal = file.string() + "-wal";
    recovered += fs::exists(wal) && fs::file_size(wal) > 0;

    const auto ledger = open_ledger(file);
    ASSERT_NE(ledger, nullptr);
    const double spent = ledger->spent_usd("alice");
    ASSERT_EQ(query(file, "PRAGMA integrity_check"), Rows{"ok"});
    const int64_t rows = std::stoll(query(file, "SELECT count(*) FROM requests")[0]);
    ASSERT_GT(rows, before) << "the first row was on disk";
    // Each row whole, none twice, none missing between others of its process; and paid for.
    ASSERT_EQ(query(file,
                    "SELECT count(*) FROM requests WHERE prompt_tokens != 3 * cached_tokens OR "
                    "request_id != 'req-' || cached_tokens OR price_usd != 0.25"),
              Rows{"0"});
    ASSERT_EQ(query(file,
                    "SELECT count(*) FROM (SELECT cached_tokens / 1000000 AS r, count(*) AS n, "
                    "count(DISTINCT cached_tokens) AS d, max(cached_tokens) % 1000000 + 1 AS m FROM requests "
                    "GROUP BY r) WHERE n != d OR n != m"),
              Rows{"0"});
    ASSERT_EQ(spent, 0.25 * static_cast<double>(rows));
    before = rows;
  }
  EXPECT_GT(recovered, 0) << "no kill left anything to recover; the test needs other times";
  RecordProperty("rows", std::to_string(before));
}

}  // namespace
}  // namespace fathom
