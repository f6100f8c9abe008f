// Blocks on disk: exact bytes, the least recently used first, within the capacity, across restarts.
#include "engine/block_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "support/random.h"
#include "support/stored_blocks.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using namespace stored;
using testing::AllOf;
using testing::HasSubstr;

// --- what it is for

TEST(BlockStore, GivesBackWhatWasPutAtOnceAndFromDisk) {
  const TempDir folder;
  const auto store = open_store(folder / "deep/cache");
  EXPECT_FALSE(store->contains(key(1)));
  EXPECT_EQ(ask(*store, 1), Found::kMiss);
  EXPECT_TRUE(store->put(key(1), content(1)));
  EXPECT_TRUE(store->contains(key(1)));
  EXPECT_EQ(ask(*store, 1), Found::kRight);
  EXPECT_FALSE(store->put(key(1), content(1))) << "it is there already";
  store->flush();
  EXPECT_FALSE(store->put(key(1), content(1))) << "it is there already";
  EXPECT_EQ(ask(*store, 1), Found::kRight);
  EXPECT_EQ(ask(*store, 2), Found::kMiss);
  const BlockStoreStats stats = store->stats();
  EXPECT_EQ(stats.blocks, 1);
  EXPECT_EQ(stats.bytes, kUnit);
  EXPECT_EQ(stats.written, 1);
  EXPECT_EQ(stats.queued_bytes, 0);
  EXPECT_EQ(stats.hits, 2);
  EXPECT_EQ(stats.misses, 2);
  EXPECT_EQ(stats.damaged + stats.evicted + stats.dropped + stats.errors, 0);
  EXPECT_EQ(stats.last_error, "");
}

TEST(BlockStore, BlocksOfAnySize) {
  const TempDir folder;
  const std::vector<size_t> sizes = {0, 1, 63, 4031, 4032, 4033, 262143, 262144, 262145, 5 << 20};
  for (int round = 0; round < 2; ++round) {
    const auto store = open_store(folder.path(), 64 << 20);
    for (size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_EQ(store->put(key(static_cast<int64_t>(i)), content(static_cast<int64_t>(i), sizes[i])), round == 0);
      store->flush();
      EXPECT_EQ(ask(*store, static_cast<int64_t>(i), sizes[i]), Found::kRight) << sizes[i];
    }
    EXPECT_EQ(store->stats().bytes, disk_bytes(folder.path()));
  }
}

TEST(BlockStore, PiecesAreJoinedAndCutAnywhere) {
  const TempDir folder;
  const auto store = open_store(folder.path(), 16 << 20);
  const Bytes whole = content(7, 1'000'000);
  TestRandom random(5);
  const auto cut = [&](auto span) {
    std::vector<decltype(span)> pieces;
    while (!span.empty()) {
      const size_t size = std::min(span.size(), static_cast<size_t>(random.below(400'000)));
      pieces.push_back(span.first(size));
      span = span.subspan(size);
    }
    return pieces;
  };
  ASSERT_TRUE(store->put(key(7), cut(std::span<const std::byte>(whole))));
  for (int round = 0; round < 10; ++round) {
    Bytes out(whole.size());
    ASSERT_TRUE(store->get(key(7), cut(std::span<std::byte>(out))));
    EXPECT_EQ(out, whole);
    store->flush();
  }
}

TEST(BlockStore, SurvivesARestart) {
  const TempDir folder;
  {
    const auto store = open_store(folder.path());
    for (int64_t i = 0; i < 40; ++i) ASSERT_TRUE(store->put(key(i), content(i)));
  }  // no flush: the destructor writes what waits
  const auto store = open_store(folder.path());
  EXPECT_EQ(store->stats().blocks, 40);
  EXPECT_EQ(store->stats().bytes, 40 * kUnit);
  for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(ask(*store, i), Found::kRight);
  EXPECT_EQ(ask(*store, 40), Found::kMiss);
}

// The bytes of a file are fixed: this one was written down when the format was, checksum by another build of xxHash.
TEST(BlockStore, ReadsAFileOfTheRecordedFormat) {
  const TempDir folder;
  fs::create_directories(folder / "fathom-blocks-1/01");
  const std::string header(
      "fathomKV\x01\0\0\0\0\0\0\0"
      "\x08\x07\x06\x05\x04\x03\x02\x01\x18\x17\x16\x15\x14\x13\x12\x11"
      "\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
      "\xa1\x29\x37\x8e\xe2\x51\x9c\x3d\xfd\x20\x33\xda\xc9\x4e\x9f\x99",
      64);
  write_text(folder / "fathom-blocks-1/01/01020304050607081112131415161718.block", header + "hello");
  const auto store = open_store(folder.path());
  std::array<char, 5> out{};
  ASSERT_TRUE(store->get({{0x0102030405060708, 0x1112131415161718}}, std::as_writable_bytes(std::span(out))));
  EXPECT_EQ(std::string(out.data(), out.size()), "hello");
}

// --- recency and room

TEST(BlockStore, TheLeastRecentlyUsedGoesFirst) {
  const TempDir folder;
  const auto store = open_store(folder.path(), 4 * kUnit + 100);
  for (int64_t i = 0; i < 4; ++i) store->put(key(i), content(i));
  store->flush();
  EXPECT_EQ(ask(*store, 0), Found::kRight);
  EXPECT_EQ(ask(*store, 2), Found::kRight);
  store->put(key(4), content(4));  // for 1
  store->put(key(5), content(5));  // for 3
  store->flush();
  for (int64_t i : {1, 3}) EXPECT_EQ(ask(*store, i), Found::kMiss) << i;
  for (int64_t i : {0, 2, 4, 5}) EXPECT_EQ(ask(*store, i), Found::kRight) << i;
  EXPECT_EQ(store->stats().evicted, 2);
  EXPECT_EQ(store->stats().damaged, 0);
}

TEST(BlockStore, WhatIsTouchedStaysInThatOrder) {
  const TempDir folder;
  const auto keys = [](std::vector<int64_t> numbers) {
    std::vector<BlockKey> list;
    for (const int64_t i : numbers) list.push_back(key(i));
    return list;
  };
  {
    const auto store = open_store(folder.path(), 6 * kUnit + 100);
    for (int64_t i = 0; i < 6; ++i) store->put(key(i), content(i));
    store->flush();
    store->touch(keys({3, 77, 2, 1, 0}));  // 77 was never there; 4 and 5 are the oldest now
    store->put(key(6), content(6));
    store->put(key(7), content(7));
    store->flush();
    for (int64_t i : {4, 5}) EXPECT_FALSE(store->contains(key(i))) << i;
    for (int64_t i : {0, 1, 2, 3, 6, 7}) EXPECT_TRUE(store->contains(key(i))) << i;
    store->touch(keys({1, 0}));
    store->flush();
  }
  const auto store = open_store(folder.path(), 4 * kUnit + 100);  // after a restart, too: 3 and 2 go
  for (int64_t i : {2, 3}) EXPECT_FALSE(store->contains(key(i))) << i;
  for (int64_t i : {0, 1, 6, 7}) EXPECT_TRUE(store->contains(key(i))) << i;
}

TEST(BlockStore, RecencySurvivesARestart) {
  const TempDir folder;
  {
    const auto store = open_store(folder.path());
    for (int64_t i = 0; i < 20; ++i) store->put(key(i), content(i));
    store->flush();
    for (int64_t i : {3, 1, 4, 15, 9}) EXPECT_EQ(ask(*store, i), Found::kRight);
  }
  // A smaller capacity keeps the newest: those asked for, then those put last.
  const auto store = open_store(folder.path(), 8 * kUnit);
  EXPECT_EQ(store->stats().blocks, 8);
  EXPECT_EQ(store->stats().evicted, 12);
  EXPECT_EQ(disk_bytes(folder.path()), 8 * kUnit);
  for (int64_t i = 0; i < 20; ++i)
    EXPECT_EQ(store->contains(key(i)), std::set<int64_t>({3, 1, 4, 15, 9, 17, 18, 19}).contains(i)) << i;
  // And the order among them: 17 is the oldest now, and 3 the oldest of those asked for.
  for (int64_t i = 20; i < 24; ++i) store->put(key(i), content(i));
  store->flush();
  for (int64_t i : {17, 18, 19, 3}) EXPECT_FALSE(store->contains(key(i))) << i;
  for (int64_t i : {1, 4, 15, 9, 20, 21, 22, 23}) EXPECT_TRUE(store->contains(key(i))) << i;
}

TEST(BlockStore, NewBlocksAreNewestAlsoAfterAClockThatRanAhead) {
  const TempDir folder;
  {
    const auto store = open_store(folder.path());
    for (int64_t i = 0; i < 3; ++i) store->put(key(i), content(i));
  }
  fs::last_write_time(file_of(folder.path(), 0), fs::file_time_type::clock::now() + std::chrono::hours(1000));
  {
    const auto store = open_store(folder.path());
    store->put(key(3), content(3));
  }
  const auto store = open_store(folder.path(), kUnit);
  EXPECT_EQ(store->stats().blocks, 1);
  EXPECT_TRUE(store->contains(key(3)));
}

TEST(BlockStore, NeverHoldsMoreThanItsCapacity) {
  const TempDir folder;
  constexpr int64_t kCapacity = 1'000'000;
  const auto store = open_store(folder.path(), kCapacity);
  TestRandom random(3);
  std::atomic<bool> done = false;
  int64_t most = 0;
  std::thread watcher([&] {
    // The sum of sizes seen one by one may count a block and the one that took its place; between two equal listings it
    // cannot have.
    while (!done) {
      try {
        const auto before = block_files(folder.path());
        const int64_t bytes = disk_bytes(folder.path());
        if (before == block_files(folder.path())) most = std::max(most, bytes);
      } catch (const fs::filesystem_error&) {
        // a file went while it was looked at
      }
    }
  });
  for (int64_t i = 0; i < 300; ++i) {
    store->put(key(i), content(i, static_cast<size_t>(random.below(200'000))));
    EXPECT_LE(store->stats().bytes, kCapacity);
    if (i % 10 == 0) store->flush();
  }
  store->flush();
  done = true;
  watcher.join();
  EXPECT_LE(most, kCapacity);
  EXPECT_LE(disk_bytes(folder.path()), kCapacity);
  EXPECT_EQ(store->stats().bytes, disk_bytes(folder.path()));
  EXPECT_GT(store->stats().bytes, kCapacity - 2 * 204'800) << "it makes no more room than it needs";
}

TEST(BlockStore, RefusesWhatCannotFit) {
  const TempDir folder;
  const auto store = open_store(folder.path(), 10 * kUnit, 3000);
  EXPECT_FALSE(store->put(key(1), content(1, 3001))) << "larger than the queue";
  EXPECT_TRUE(store->put(key(1), content(1, 3000)));
  store->flush();
  EXPECT_TRUE(store->put(key(2), content(2, 3000))) << "the queue is empty again";
  store->flush();
  EXPECT_EQ(store->stats().dropped, 1);
  const TempDir other;
  const auto small = open_store(other.path(), kUnit);
  EXPECT_FALSE(small->put(key(1), content(1, kUnit))) << "with its header larger than all there may be";
  EXPECT_TRUE(small->put(key(1), content(1, kUnit - 64)));
  EXPECT_EQ(small->stats().dropped, 1);
}

TEST(BlockStore, AFullQueueDropsAndNeverBlocks) {
  const TempDir folder;
  const auto store = open_store(folder.path(), 1 << 30, 1'000'000);
  int64_t accepted = 0;
  const Bytes block = content(1, 300'000);
  for (int64_t i = 0; i < 200; ++i) {
    accepted += store->put(key(i), block);
    EXPECT_LE(store->stats().queued_bytes, 1'000'000);
  }
  store->flush();
  EXPECT_GE(accepted, 3);
  EXPECT_EQ(store->stats().written, accepted);
  EXPECT_EQ(store->stats().dropped, 200 - accepted);
}

// --- the folder

TEST(BlockStore, ASecondStoreOnAFolderIsRefused) {
  const TempDir folder;
  auto store = open_store(folder.path());
  const auto second = BlockStore::open({.folder = folder.path(), .capacity_bytes = 1 << 20, .queue_bytes = 1 << 20});
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message,
              AllOf(HasSubstr(folder.path().string()), HasSubstr("process " + std::to_string(getpid()))));
  store->put(key(1), content(1));
  store.reset();
  EXPECT_EQ(ask(*open_store(folder.path()), 1), Found::kRight) << "the refused one must not have touched it";
}

TEST(BlockStore, UnusableSettingsAndFoldersAreErrors) {
  const TempDir folder;
  write_text(folder / "file", "text");
  const auto message = [](const BlockStoreSettings& settings) {
    const auto store = BlockStore::open(settings);
    return store ? "opened" : store.error().message;
  };
  EXPECT_THAT(message({.folder = folder / "file", .capacity_bytes = 1, .queue_bytes = 1}),
              AllOf(HasSubstr((folder / "file").string()), HasSubstr("ot a directory")));
  EXPECT_THAT(message({.folder = folder / "file/below", .capacity_bytes = 1, .queue_bytes = 1}),
              HasSubstr("ot a directory"));
  EXPECT_THAT(message({.folder = "/proc/none", .capacity_bytes = 1, .queue_bytes = 1}), HasSubstr("/proc/none"));
  EXPECT_THAT(message({.folder = "", .capacity_bytes = 1, .queue_bytes = 1}), HasSubstr("cannot make"));
  for (const int64_t bad : {int64_t{0}, int64_t{-1}, INT64_MAX}) {
    EXPECT_THAT(message({.folder = folder / "a", .capacity_bytes = bad, .queue_bytes = 1}),
                HasSubstr(std::to_string(bad)));
    EXPECT_THAT(message({.folder = folder / "a", .capacity_bytes = 1, .queue_bytes = bad}),
                HasSubstr(std::to_string(bad)));
  }
  EXPECT_FALSE(fs::exists(folder / "a")) << "nothing is made for settings that are refused";
  fs::create_directories(folder / "b/lock");
  EXPECT_THAT(message({.folder = folder / "b", .capacity_bytes = 1, .queue_bytes = 1}), HasSubstr("lock"));
  fs::create_directories(folder / "c");
  write_text(folder / "c/fathom-blocks-1", "text");
  EXPECT_THAT(message({.folder = folder / "c", .capacity_bytes = 1, .queue_bytes = 1}), HasSubstr("fathom-blocks-1"));
  EXPECT_EQ(message({.folder = folder / "d", .capacity_bytes = 1, .queue_bytes = 1}), "opened");
}

TEST(BlockStore, RemovesItsOwnLeftoversAndNothingElse) {
  const TempDir folder;
  { open_store(folder.path())->put(key(1), content(1)); }
  const fs::path own = folder / "fathom-blocks-1";
  write_text(own / "new", "the half of a block");
  for (const char* other : {"fathom-blocks-0", "fathom-blocks-27"}) {
    fs::create_directories(folder / other / "ab");
    write_text(folder / other / "ab/block", "of another format");
  }
  const std::string name = file_of(folder.path(), 1).filename().string();
  const std::string elsewhere = name.substr(0, 2) == "00" ? "11" : "00";
  fs::create_directories(own / elsewhere);
  const std::vector<fs::path> foreign = {folder / "notes.txt",
                                         folder / "fathom-blocks-",
                                         folder / "fathom-blocks-1b",
                                         own / "notes.txt",
                                         own / elsewhere / "notes",
                                         own / elsewhere / name,
                                         own / elsewhere / "00+123456789abcdef0123456789abcde.block"};
  for (const fs::path& path : foreign) write_text(path, "mine");
  const auto store = open_store(folder.path());
  EXPECT_EQ(ask(*store, 1), Found::kRight);
  EXPECT_EQ(store->stats().blocks, 1);
  EXPECT_FALSE(fs::exists(own / "new"));
  EXPECT_FALSE(fs::exists(folder / "fathom-blocks-0"));
  EXPECT_FALSE(fs::exists(folder / "fathom-blocks-27"));
  for (const fs::path& path : foreign) EXPECT_EQ(text_of(path), "mine") << path;
}

TEST(BlockStore, FilesAreTheirOwnersAlone) {
  const TempDir folder;
  const auto store = open_store(folder.path());
  store->put(key(1), content(1));
  store->flush();
  struct stat status {};
  ASSERT_EQ(stat(file_of(folder.path(), 1).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  ASSERT_EQ(stat((folder / "fathom-blocks-1").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

}  // namespace
}  // namespace fathom
