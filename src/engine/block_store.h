// The disk half of the context cache: blobs under 128-bit keys, in a folder, kept across restarts.
//
// Promises:
// - `get` gives exactly the bytes of a `put` under that key, or false. A checksum (XXH3-128) covers format, key, size and
//   content; a block that fails it is deleted and counted. It guards against accidents, not against whoever can write
//   to the folder.
// - A block appears by rename, so a killed process leaves whole blocks and at most one temporary file, which the next
//   `open` removes. Nothing is fsynced: after a power cut the newest blocks may be missing or torn, and the checksum finds
//   the torn ones.
// - The block files never hold more than `capacity_bytes` together, the one being written included and each rounded up to
//   whole 4 KiB; the least recently used goes first. Recency survives a restart, as finely as the file system keeps
//   modification times: `get` sets them, and after `touch` the writing thread.
// - Troubles of the disk (full, unwritable, unreadable) fail no call: the block is then not cached. They are counted, and
//   the last is told in words (BlockStoreStats), for the caller to warn of once.
// - Blocks hold what users wrote, so they are readable by their owner alone.
//
// On disk: FOLDER/lock, held with flock while a store is open; FOLDER/fathom-blocks-1/KK/KEY.block, where KEY is the key in
// hex and KK its first byte. Blocks of another format (fathom-blocks-N) are of no use to this program: `open` deletes
// them. All else in the folder is left alone and not counted.
//
// One file a block, not large segment files: dropping the oldest is one unlink without compaction, damage stays within a
// block, and the file system's own rename is the commit. What it costs (bench/block_store_bench.cpp; ext4, files in the
// page cache, one EPYC core of 2.6 GHz, CPU time, raw = open, pread, close of the same files):
//   5 MB blocks    get 331 µs = 15 GB/s, raw 196 µs; `put` keeps its caller for 0.8 ms
//   20 KB blocks   get 9.6 µs = 2 GB/s, raw 5.7 µs; `put` 1 µs. Segments would save most of both, some microseconds beside
//                  the milliseconds in which even a small model computes 64 tokens; and the rounding to 4 KiB
//   50,000 blocks  `open` 0.12 s when the system remembers the files
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/file_descriptor.h"
#include "base/result.h"
#include "engine/block_key.h"

namespace fathom {

struct BlockStoreSettings {
  std::filesystem::path folder;  // made when it is missing
  int64_t capacity_bytes = 0;
  int64_t queue_bytes =
      0;  // what may wait in memory to be written; at least one block's size, or nothing is ever cached
};

struct BlockStoreStats {
  int64_t blocks = 0, bytes = 0;  // on disk now
  int64_t queued_bytes = 0;       // waiting to be written
  int64_t hits = 0, misses = 0;   // of `get`; a damaged block is a miss too
  int64_t damaged = 0;            // found damaged and dropped, by `get` or `open`
  int64_t written = 0;
  int64_t evicted = 0;     // dropped for newer ones
  int64_t dropped = 0;     // refused by `put`: no room in the queue, or larger than the capacity
  int64_t errors = 0;      // failures of the disk: blocks not written, not read, not removed
  std::string last_error;  // the latest of them in words; empty when there was none
};

// Thread-safe. One process, one store a folder: a second one is refused.
class BlockStore {
 public:
  // Reads the names, sizes and times of what is there, not the contents. Drops the oldest beyond the capacity.
  static Result<std::unique_ptr<BlockStore>> open(const BlockStoreSettings& settings);
  // Writes what still waits.
  ~BlockStore();
  BlockStore(const BlockStore&) = delete;
  BlockStore& operator=(const BlockStore&) = delete;

  // Of this size, as many as the capacity has room for.
  int64_t most_blocks(int64_t content_bytes) const;

  // Whether `get` would try: from memory, in no time.
  bool contains(const BlockKey& key) const;

  // Caches the pieces, one after the other, as one block. Copies them; a thread of the store's own writes the copy. False:
  // it is there already, or was dropped (see BlockStoreStats::dropped). One key always comes with one size.
  bool put(const BlockKey& key, std::span<const std::span<const std::byte>> pieces);
  bool put(const BlockKey& key, std::span<const std::byte> block) { return put(key, {&block, 1}); }

  // Fills the pieces, which together are as large as the block, in the order in which `put` had them (cut elsewhere is
  // fine). False: not there, or damaged, of another size too; the pieces then hold anything. A block that waits to
  // be written is found.
  bool get(const BlockKey& key, std::span<const std::span<std::byte>> pieces);
  bool get(const BlockKey& key, std::span<std::byte> block) { return get(key, {&block, 1}); }

  // They were used, though not by `get`: in this order they go, after all that was used before. What is not on disk is passed
  // over.
  void touch(std::span<const BlockKey> keys);

  // Until all that was put is a file (or has failed to become one). It survives the process then, not a power cut.
  void flush();

  BlockStoreStats stats() const;

 private:
  struct Block {
    BlockKey key;
    int64_t disk_bytes = 0;
    uint64_t generation = 0;  // tells a block from one written later under the same key
  };
  using Blocks = std::list<Block>;
  using Content = std::shared_ptr<const std::vector<std::byte>>;

  explicit BlockStore(const BlockStoreSettings& settings) : settings_(settings) {}
  Status lock_folder();
  Status scan();
  void write_queue();
  Status write_block(const BlockKey& key, std::span<const std::byte> content);
  Status make_room(int64_t disk_bytes);
  // False: damaged, or `error` is what the system said.
  static bool read_block(const FileDescriptor& file, const BlockKey& key, std::span<const std::span<std::byte>> pieces,
                         int& error);
  // These four with the mutex held (`scan` needs none: no other thread yet).
  void note_error(std::string message);
  int64_t next_stamp();
  void add_newest(const BlockKey& key, int64_t disk_bytes);
  void forget(Blocks::iterator block);

  const BlockStoreSettings settings_;
  FileDescriptor lock_;
  FileDescriptor folder_;  // fathom-blocks-1

  mutable std::mutex mutex_;  // guards all below; held for no file operation but the removal of a damaged block
  Blocks blocks_;             // on disk, the least recently used first
  std::unordered_map<BlockKey, Blocks::iterator, BlockKeyHash> places_;
  std::unordered_map<BlockKey, Content, BlockKeyHash> waiting_;  // in the queue, or being written
  std::deque<BlockKey> queue_;
  std::deque<std::pair<BlockKey, int64_t>> touched_;  // modification times that are still to be set
  bool stamping_ = false;                             // some are being set
  uint64_t last_generation_ = 0;
  int64_t last_stamp_ = 0;  // modification times only grow, whatever the clock does
  BlockStoreStats stats_;
  bool stopping_ = false;
  std::condition_variable work_, idle_;
  std::thread writer_;
};

}  // namespace fathom
