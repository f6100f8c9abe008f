#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/check.h"

namespace fathom {

namespace {
// A decode step has hundreds of parallel regions microseconds apart: spinning that long beats a futex call, and a
// program that idles (waiting for a person) sleeps after about 0.1 ms (a pause takes 40 to 140 cycles).
constexpr int kSpins = 2000;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// The cores that this program may use.
std::vector<int> available_cores() {
  std::vector<int> cores;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int core = 0; core < CPU_SETSIZE; ++core)
      if (CPU_ISSET(static_cast<size_t>(core), &set)) cores.push_back(core);
  if (cores.empty())
    for (int core = 0; core < std::max(1, static_cast<int>(std::thread::hardware_concurrency())); ++core)
      cores.push_back(core);
  return cores;
}

// A worker stays on its core: its caches, and on several sockets its memory, are there. Refusal costs speed, nothing else.
void pin_to(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(core), &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}
}  // namespace

ThreadPool::ThreadPool(int threads) {
  const std::vector<int> cores = available_cores();
  if (threads <= 0) threads = static_cast<int>(cores.size());
  shares_ = std::vector<Share>(static_cast<size_t>(threads));
  workers_.reserve(static_cast<size_t>(threads - 1));
  // Only as many threads as cores have a core each. The caller's thread is not ours to pin: it gets the first core by being
  // left the only one without a worker.
  const bool pinned = threads <= static_cast<int>(cores.size());
  for (int i = 1; i < threads; ++i)
    workers_.emplace_back([this, i, core = pinned ? cores[static_cast<size_t>(i)] : -1] {
      if (core >= 0) pin_to(core);
      worker_loop(i);
    });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t count, int64_t grain, Piece piece, void* context) {
  if (count <= 0) return;
  if (workers_.empty() || count <= grain) {
    piece(context, 0, count, 0);
    return;
  }
  piece_ = piece;
  context_ = context;
  count_ = count;
  grain_ = std::max<int64_t>(grain, 1);
  const uint64_t pieces = static_cast<uint64_t>((count - 1) / grain_) + 1, threads = shares_.size();
  FATHOM_CHECK(pieces < uint64_t{1} << 32, "{} pieces of {}", pieces, grain_);
  for (uint64_t i = 0, begin = 0; i < threads; ++i) {
    const uint64_t end = pieces * (i + 1) / threads;
    shares_[i].left.store(end << 32 | begin, std::memory_order_relaxed);
    begin = end;
  }
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst) > 0) {
    { std::lock_guard lock(mutex_); }  // a worker between its last look and its wait must not miss this
    wake_.notify_all();
  }
  work(0);
  for (int spins = 0; running_.load(std::memory_order_acquire) > 0; ++spins)
    spins < kSpins ? pause() : std::this_thread::yield();  // yield: the worker may be waiting for this very core
}

void ThreadPool::run_piece(uint64_t index, int worker) {
  const int64_t begin = static_cast<int64_t>(index) * grain_;
  piece_(context_, begin, std::min(begin + grain_, count_), worker);
}

void ThreadPool::work(int worker) {
  constexpr uint64_t kEnd = uint64_t{1} << 32;
  const auto take = [](Share& share, uint64_t change, auto&& run) {
    for (uint64_t left = share.left.load(std::memory_order_relaxed); left % kEnd < left / kEnd;)
      if (share.left.compare_exchange_weak(left, left + change, std::memory_order_relaxed)) {
        run(left);
        left = share.left.load(std::memory_order_relaxed);
      }
  };
  const size_t own = static_cast<size_t>(worker);
  take(shares_[own], 1, [&](uint64_t left) { run_piece(left % kEnd, worker); });
  for (size_t i = 1; i < shares_.size(); ++i)
    take(shares_[(own + i) % shares_.size()], -kEnd, [&](uint64_t left) { run_piece(left / kEnd - 1, worker); });
}

void ThreadPool::worker_loop(int worker) {
  uint64_t seen = 0;
  while (true) {
    int spins = 0;
    while (generation_.load(std::memory_order_acquire) == seen && !stop_.load(std::memory_order_relaxed)) {
      if (++spins < kSpins) {
        pause();
        continue;
      }
      std::unique_lock lock(mutex_);
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return generation_.load(std::memory_order_seq_cst) != seen || stop_; });
      sleeping_.fetch_sub(1, std::memory_order_relaxed);
    }
    if (stop_) return;
    seen = generation_.load(std::memory_order_acquire);
    work(worker);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace fathom
