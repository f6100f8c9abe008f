// The disk half of the context cache against the raw file: reads from the page cache, writes, and opening a full folder.
// FATHOM_BENCH_FOLDER: where to write (a temporary folder below the system's, unless told).
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/file_descriptor.h"
#include "engine/block_store.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    const char* base = std::getenv("FATHOM_BENCH_FOLDER");
    std::string name = ((base ? fs::path(base) : fs::temp_directory_path()) / "fathom-bench-XXXXXX").string();
    FATHOM_CHECK(mkdtemp(name.data()), "{}", name);
    path_ = name;
  }
  ~Folder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

BlockKey key(int64_t i) { return root_key(std::to_string(i)); }

std::unique_ptr<BlockStore> open_store(const fs::path& folder) {
  auto store =
      BlockStore::open({.folder = folder, .capacity_bytes = int64_t{1} << 40, .queue_bytes = int64_t{1} << 30});
  FATHOM_CHECK(store, "{}", store.error().message);
  return *std::move(store);
}

// Blocks of one size, enough of them that no cache of the processor holds them all.
std::unique_ptr<BlockStore> filled(const fs::path& folder, int64_t block_bytes, int64_t blocks) {
  auto store = open_store(folder);
  std::vector<std::byte> content(static_cast<size_t>(block_bytes));
  for (int64_t i = 0; i < blocks; ++i) {
    for (size_t b = 0; b < content.size(); b += 8) content[b] = static_cast<std::byte>(i + static_cast<int64_t>(b));
    while (!store->put(key(i), content)) store->flush();
  }
  store->flush();
  return store;
}

constexpr int64_t kReadBytes = 256 << 20;

void report(benchmark::State& state, int64_t block_bytes) { state.SetBytesProcessed(state.iterations() * block_bytes); }

void get(benchmark::State& state) {
  const int64_t size = state.range(0), blocks = kReadBytes / size;
  const Folder folder;
  const auto store = filled(folder.path(), size, blocks);
  std::vector<std::byte> out(static_cast<size_t>(size));
  int64_t i = 0;
  for (auto _ : state) FATHOM_CHECK(store->get(key(i++ % blocks), out), "block {}", i);
  report(state, size);
}

// What no store could beat: open, read and close of the same files.
void raw_read(benchmark::State& state) {
  const int64_t size = state.range(0), blocks = kReadBytes / size;
  const Folder folder;
  filled(folder.path(), size, blocks);
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder.path() / "fathom-blocks-1"))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::vector<std::byte> out(static_cast<size_t>(size));
  size_t i = 0;
  for (auto _ : state) {
    const FileDescriptor file(::open(files[i++ % files.size()].c_str(), O_RDONLY | O_CLOEXEC));
    FATHOM_CHECK(pread(file.get(), out.data(), out.size(), 64) == size, "file {}", i);
  }
  report(state, size);
}

// What the caller of `put` waits for: the copy.
void put(benchmark::State& state) {
  const int64_t size = state.range(0);
  const Folder folder;
  const auto store = open_store(folder.path());
  const std::vector<std::byte> content(static_cast<size_t>(size));
  int64_t i = 0;
  for (auto _ : state) FATHOM_CHECK(store->put(key(i++), content), "block {}", i);
  report(state, size);
}

// All of a write, by the store's thread, into the page cache.
void put_and_flush(benchmark::State& state) {
  const int64_t size = state.range(0);
  const Folder folder;
  const auto store = open_store(folder.path());
  const std::vector<std::byte> content(static_cast<size_t>(size));
  int64_t i = 0;
  for (auto _ : state) {
    FATHOM_CHECK(store->put(key(i++), content), "block {}", i);
    store->flush();
  }
  report(state, size);
}

void open_folder(benchmark::State& state) {
  const Folder folder;
  filled(folder.path(), 4000, state.range(0));
  for (auto _ : state) FATHOM_CHECK(open_store(folder.path())->stats().blocks == state.range(0), "blocks are missing");
}

BENCHMARK(raw_read)->Arg(20 << 10)->Arg(5 << 20)->Unit(benchmark::kMicrosecond);
BENCHMARK(get)->Arg(20 << 10)->Arg(5 << 20)->Unit(benchmark::kMicrosecond);
BENCHMARK(put)->Arg(20 << 10)->Arg(5 << 20)->Iterations(100)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(put_and_flush)->Arg(20 << 10)->Arg(5 << 20)->Iterations(100)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(open_folder)->Arg(50'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace fathom

BENCHMARK_MAIN();
