// One pool of threads for the whole program. Work is done in small pieces: each thread begins with a share of its own, in order, so that
// what it reads lies in one stretch and is the same from step to step, and then takes pieces from the ends of the others' shares.
// Which thread runs a piece never changes a result, because no operation's order of summation depends on how its work is cut.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace fathom {

class ThreadPool {
 public:
  // threads: how many run at once, the caller included; 0 means one per available core. With no more threads than cores, each
  // worker is pinned to a core of its own.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end, worker) over [0, count) in pieces of at most `grain`, of which there may be 2^32 − 1; worker in
  // [0, threads()) names the thread, for per-thread scratch. Returns when all is done. Only one thread may call it at a time; body
  // must not.
  template <typename Body>
  void parallel_for(int64_t count, int64_t grain, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(
        count, grain,
        [](void* context, int64_t begin, int64_t end, int worker) {
          (*static_cast<Plain*>(context))(begin, end, worker);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Piece = void (*)(void* context, int64_t begin, int64_t end, int worker);
  // Pieces [begin, end) that nobody has taken, as end · 2^32 + begin. A line of its own: others look at it only when they have nothing
  // left to do.
  struct alignas(64) Share {
    std::atomic<uint64_t> left{0};
  };
  void run(int64_t count, int64_t grain, Piece piece, void* context);
  void work(int worker);
  void run_piece(uint64_t index, int worker);
  void worker_loop(int worker);

  std::vector<std::thread> workers_;
  std::vector<Share> shares_;  // of each thread
  // The current job: written by run() before `generation_` is raised, read by workers after they see it raised.
  Piece piece_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0, grain_ = 1;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> running_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace fathom
