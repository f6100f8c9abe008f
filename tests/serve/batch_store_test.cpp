// Files and batches on disk: whose they are, what a crash leaves, what a full disk does.
#include "serve/batch_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "serve/support.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class BatchStoreTest : public testing::Test {
 protected:
  void open(int64_t most_bytes = 1000) {
    store.reset();
    auto opened = BatchStore::open(folder.path() / "files", most_bytes);
    ASSERT_TRUE(opened) << opened.error().message;
    store = *std::move(opened);
  }
  StoredFile add(const std::string& key, const std::string& content, const std::string& purpose = "batch") {
    const auto file = store->add_file(key, "name.jsonl", purpose, content);
    EXPECT_TRUE(file) << file.error().message;
    return file ? *file : StoredFile{};
  }
  StoredBatch begin(const std::string& key, const std::string& input) {
    const auto batch = store->add_batch(
        {.key = key, .endpoint = "/v1/completions", .input_file = input, .metadata = R"({"a":"b"})", .expires = 12});
    EXPECT_TRUE(batch) << batch.error().message;
    return *batch;
  }
  std::string content_of(const std::string& id) { return test::file_text(store->path_of(id)); }

  TempDir folder;
  std::unique_ptr<BatchStore> store;
};

TEST_F(BatchStoreTest, AKeySeesItsOwn) {
  open();
  const StoredFile a = add("a", "one"), b = add("b", "two"), c = add("a", "three", "other");
  EXPECT_EQ(content_of(a.id), "one");
  EXPECT_EQ(store->file("a", a.id)->bytes, 3);
  EXPECT_EQ(store->file("a", a.id)->filename, "name.jsonl");
  EXPECT_EQ(store->file("b", a.id).error().status, 404);
  EXPECT_EQ(store->remove_file("b", a.id).error().status, 404);
  const auto ids = [&](const std::string& key, const std::string& purpose, const PageQuery& query) {
    std::vector<std::string> out;
    const auto page = store->files(key, purpose, query);
    EXPECT_TRUE(page) << page.error().message;
    for (const StoredFile& file : page->items) out.push_back(file.id);
    if (page->more) out.push_back("more");
    return out;
  };
  EXPECT_THAT(ids("a", "", {}), ElementsAre(c.id, a.id));
  EXPECT_THAT(ids("a", "", {.newest_first = false}), ElementsAre(a.id, c.id));
  EXPECT_THAT(ids("a", "batch", {}), ElementsAre(a.id));
  EXPECT_THAT(ids("a", "", {.most = 1}), ElementsAre(c.id, "more"));
  EXPECT_THAT(ids("a", "", {.most = 1, .after = c.id}), ElementsAre(a.id));
  EXPECT_EQ(store->files("a", "", {.after = b.id}).error().status, 404);

  const StoredBatch batch = begin("a", a.id);
  EXPECT_EQ(store->batch("b", batch.id).error().status, 404);
  EXPECT_EQ(store->batches("a", {})->items.size(), 1u);
  EXPECT_EQ(store->batches("b", {})->items.size(), 0u);
}

TEST_F(BatchStoreTest, RemovedFilesAreGone) {
  open();
  const StoredFile file = add("a", "one");
  ASSERT_TRUE(store->remove_file("a", file.id));
  EXPECT_FALSE(fs::exists(store->path_of(file.id)));
  EXPECT_EQ(store->file("a", file.id).error().status, 404);
}

TEST_F(BatchStoreTest, NoMoreThanThereIsRoomFor) {
  open(5);
  const StoredFile file = add("a", "1234");
  const auto refused = store->add_file("b", "name", "batch", "56");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 413);
  EXPECT_THAT(refused.error().message, HasSubstr("of the 5 bytes that this server keeps for files 4 are taken"));
  ASSERT_TRUE(store->remove_file("a", file.id));
  add("b", "12345");
}

TEST_F(BatchStoreTest, NorForFilesThatComeAtOnce) {
  open(1000);
  std::atomic<int> kept = 0, refused = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i)
      threads.emplace_back([&] {
        for (int j = 0; j < 4; ++j) {
          const auto file = store->add_file("a", "name", "batch", std::string(300, 'x'));
          if (!file) {
            EXPECT_EQ(file.error().status, 413) << file.error().message;
          }
          ++(file ? kept : refused);
        }
      });
  }
  EXPECT_EQ(kept, 3);
  EXPECT_EQ(refused, 29);
  EXPECT_EQ(store->files("a", "", {.most = 100})->items.size(), 3u);
}

TEST_F(BatchStoreTest, ABatchIsAsItWasWrittenLast) {
  open();
  const StoredFile input = add("a", "x");
  StoredBatch batch = begin("a", input.id);
  EXPECT_EQ(store->remove_file("a", input.id).error().status, 409);
  batch.status = BatchStatus::kInProgress;
  batch.started = 7;
  ASSERT_TRUE(store->update(batch));
  // As a run of it leaves them.
  test::write_text(store->path_of(batch.output_file), "answer\n");
  test::write_text(store->path_of(batch.error_file), "");
  open();
  ASSERT_EQ(store->unfinished()->size(), 1u);
  batch = store->unfinished()->front();
  EXPECT_EQ(batch.status, BatchStatus::kInProgress);
  EXPECT_EQ(batch.started, 7);
  EXPECT_EQ(batch.metadata, R"({"a":"b"})");
  EXPECT_EQ(content_of(batch.output_file), "answer\n") << "of one that is not over, it stays";
  EXPECT_EQ(store->file("a", batch.output_file).error().status, 404) << "and is not to be seen yet";

  batch.status = BatchStatus::kCompleted;
  batch.ended = 9;
  batch.requests = batch.completed = 1;
  ASSERT_TRUE(store->update(batch));
  open();
  EXPECT_TRUE(store->unfinished()->empty());
  EXPECT_EQ(store->batch("a", batch.id)->completed, 1);
  EXPECT_EQ(store->file("a", batch.output_file)->bytes, 7);
  EXPECT_EQ(store->file("a", batch.output_file)->purpose, "batch_output");
  EXPECT_EQ(store->file("a", batch.error_file).error().status, 404) << "no lines, no file";
  EXPECT_FALSE(fs::exists(store->path_of(batch.error_file)));
  EXPECT_TRUE(store->remove_file("a", input.id));
}

TEST_F(BatchStoreTest, AKeyHasOnlySoManyUnderWay) {
  open();
  const StoredFile input = add("a", "x");
  StoredBatch first = begin("a", input.id);
  for (int64_t i = 1; i < BatchStore::kMostUnfinished; ++i) begin("a", input.id);
  const auto refused = store->add_batch({.key = "a", .endpoint = "/v1/completions", .input_file = input.id});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 429);
  EXPECT_THAT(refused.error().message, HasSubstr("100 batches of this key are not over"));
  begin("b", input.id);
  first.status = BatchStatus::kCompleted;
  ASSERT_TRUE(store->update(first));
  begin("a", input.id);
}

TEST_F(BatchStoreTest, WhatACrashLeftIsDeleted) {
  open();
  const StoredFile kept = add("a", "x");
  const fs::path left = store->path_of("file-left"), cut = store->path_of("file-cut.tmp-123456");
  test::write_text(left, "x");
  test::write_text(cut, "x");
  test::write_text(folder.path() / "files" / "notes.txt", "someone's");
  open();
  EXPECT_FALSE(fs::exists(left));
  EXPECT_FALSE(fs::exists(cut));
  EXPECT_TRUE(fs::exists(folder.path() / "files" / "notes.txt"));
  EXPECT_EQ(content_of(kept.id), "x");
  EXPECT_EQ(fs::status(folder.path() / "files").permissions(), fs::perms::owner_all);
}

// Also in a folder that others may look into.
TEST_F(BatchStoreTest, FilesAreTheOwnersAlone) {
  fs::create_directory(folder.path() / "files");
  fs::permissions(folder.path() / "files", fs::perms(0755));
  open();
  const StoredFile file = add("a", "x");
  EXPECT_EQ(fs::status(store->path_of(file.id)).permissions(), fs::perms(0600));
}

TEST_F(BatchStoreTest, AFullDiskCostsTheUploadAlone) {
  open(6000);
  const StoredFile kept = add("a", "x");
  {
    const test::FullDisk full(1000);
    const auto refused = store->add_file("a", "name", "batch", std::string(5000, 'y'));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().status, 500);
  }
  EXPECT_EQ(store->files("a", "", {})->items.size(), 1u);
  add("a", std::string(5000, 'y'));
  EXPECT_EQ(content_of(kept.id), "x");
}

TEST_F(BatchStoreTest, WhatIsNoStoreIsLeftAsItIs) {
  test::write_text(folder.path() / "files", "a file");
  EXPECT_FALSE(BatchStore::open(folder.path() / "files", 1));
  fs::create_directories(folder.path() / "other");
  test::write_text(folder.path() / "other" / "batches.db", std::string(5000, 'x'));
  const auto opened = BatchStore::open(folder.path() / "other", 1);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("batches.db: damaged, or no SQLite database"));
}

}  // namespace
}  // namespace fathom
