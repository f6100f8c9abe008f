// The thread pool: every index exactly once, whatever the sizes, under load and after sleep.
#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace fathom {
namespace {

TEST(ThreadPool, EveryIndexOnce) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (int64_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
        std::atomic<bool> sound = true;
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int worker) {
          if (begin < 0 || begin >= end || end > count || worker < 0 || worker >= threads) sound = false;
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        EXPECT_TRUE(sound);
        for (const auto& times : seen) ASSERT_EQ(times, 1) << threads << " " << count << " " << grain;
      }
    }
  }
}

TEST(ThreadPool, PiecesAreNoLargerThanTheGrain) {
  ThreadPool pool(3);
  std::atomic<int64_t> largest = 0;
  pool.parallel_for(1000, 7, [&](int64_t begin, int64_t end, int) {
    int64_t now = largest;
    while (end - begin > now && !largest.compare_exchange_weak(now, end - begin)) {
    }
  });
  EXPECT_EQ(largest, 7);
}

TEST(ThreadPool, SharesInOrderThenFromTheEndsOfOthers) {
  ThreadPool pool(2);
  std::vector<int64_t> pieces[2];
  std::atomic<bool> worker_began = false;
  std::atomic<int> of_caller = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  const auto wait_until = [&](auto&& condition) {
    while (!condition() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  };
  pool.parallel_for(8, 1, [&](int64_t begin, int64_t, int worker) {
    pieces[worker].push_back(begin);
    if (worker == 1) {
      worker_began = true;
      wait_until([&] { return of_caller == 7; });
    } else {
      wait_until([&] { return worker_began.load(); });
      ++of_caller;
    }
  });
  EXPECT_EQ(pieces[0], (std::vector<int64_t>{0, 1, 2, 3, 7, 6, 5}));
  EXPECT_EQ(pieces[1], (std::vector<int64_t>{4}));
}

TEST(ThreadPool, AWorkerNumberIsOneThreadAtATime) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  std::atomic<bool> sound = true;
  for (int round = 0; round < 50; ++round)
    pool.parallel_for(64, 1, [&](int64_t, int64_t, int worker) {
      if (inside[static_cast<size_t>(worker)]++ != 0) sound = false;
      --inside[static_cast<size_t>(worker)];
    });
  EXPECT_TRUE(sound);
}

TEST(ThreadPool, ManySmallJobsSeeEachOthersWrites) {
  ThreadPool pool(3);
  std::vector<int64_t> value(100, 0);  // plain memory: a lost happens-before shows as a wrong sum (and under tsan)
  for (int round = 0; round < 500; ++round)
    pool.parallel_for(100, 9, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) ++value[static_cast<size_t>(i)];
    });
  EXPECT_EQ(std::accumulate(value.begin(), value.end(), int64_t{0}), 50000);
}

TEST(ThreadPool, WakesFromSleep) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // far beyond what it spins
    std::atomic<int64_t> sum = 0;
    pool.parallel_for(50, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
    EXPECT_EQ(sum, 49 * 50 / 2);
  }
}

TEST(ThreadPool, EndsWithoutWorkAndRightAfterWork) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(3);
    if (round % 2) continue;
    std::atomic<int> calls = 0;
    pool.parallel_for(3, 1, [&](int64_t, int64_t, int) { ++calls; });
    EXPECT_EQ(calls, 3);
  }
}

}  // namespace
}  // namespace fathom
