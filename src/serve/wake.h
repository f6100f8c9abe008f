// How other threads reach coroutines of the network's thread.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <memory>
#include <utility>

#include "net/await.h"

namespace fathom {

// A coroutine waits; any thread may wake it. Several wakes before it runs are one.
class Wake : public std::enable_shared_from_this<Wake> {
 public:
  explicit Wake(const boost::asio::any_io_executor& network) : timer_(network) {}

  // From any thread.
  void notify() {
    if (posted_.exchange(true)) return;
    boost::asio::post(timer_.get_executor(), [self = shared_from_this()] {
      self->posted_ = false;
      self->set_ = true;
      self->timer_.cancel();
    });
  }
  // On the network's thread: until the next notify, one that came before included, or until the time has passed.
  boost::asio::awaitable<void> wait(std::chrono::milliseconds most) {
    if (!set_) {
      timer_.expires_after(most);
      co_await timer_.async_wait(kResult);
    }
    set_ = false;
  }

 private:
  std::atomic<bool> posted_ = false;
  bool set_ = false;
  boost::asio::steady_timer timer_;
};

// What takes longer than a network's thread should: done by the pool; the coroutine goes on where it was.
template <typename Function>
boost::asio::awaitable<std::invoke_result_t<const Function&>> run_on(boost::asio::thread_pool& pool,
                                                                     const Function& function) {
  using Value = std::invoke_result_t<const Function&>;
  auto work = [&function]() -> boost::asio::awaitable<Value> { co_return function(); };
  co_return co_await boost::asio::co_spawn(pool, std::move(work), boost::asio::use_awaitable);
}

}  // namespace fathom
