// Models that come when they are asked for and go when they are not, by a clock of the test's own.
#include "serve/model_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <future>

namespace fathom {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using testing::HasSubstr;

ModelSettings sample() {
  ModelSettings model;
  model.name = "sample";
  model.folder = FATHOM_MODELS "/sample";
  model.engine.threads = 1;
  model.engine.context = 256;
  return model;
}

class ModelHostTest : public testing::Test {
 protected:
  void host(ModelSettings model) { host_ = std::make_unique<ModelHost>(std::vector{std::move(model)}, pool_); }
  Result<std::shared_ptr<LoadedModel>> acquire() {
    auto model = asio::co_spawn(network_, host_->acquire(0), asio::use_future);
    network_.restart();
    network_.run();
    return model.get();
  }
  // After so much time without a request.
  bool loaded_after(std::chrono::minutes time) {
    host_->unload_idle(std::chrono::steady_clock::now() + time);
    return host_->loaded(0) != nullptr;
  }

  asio::io_context network_{1};
  asio::thread_pool pool_{2};
  std::unique_ptr<ModelHost> host_;
};

TEST_F(ModelHostTest, RequestsThatComeTogetherShareALoad) {
  host(sample());
  EXPECT_EQ(host_->loaded(0), nullptr);
  std::vector<std::future<Result<std::shared_ptr<LoadedModel>>>> all;
  for (int i = 0; i < 5; ++i) all.push_back(asio::co_spawn(network_, host_->acquire(0), asio::use_future));
  network_.run();
  for (auto& one : all) {
    const auto model = one.get();
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_EQ(*model, host_->loaded(0));
  }
}

TEST_F(ModelHostTest, GoesWhenNobodyUsesItForItsTime) {
  ModelSettings model = sample();
  model.unload_after = 10min;
  host(model);
  {
    const auto held = acquire();
    ASSERT_TRUE(held) << held.error().message;
    EXPECT_TRUE(loaded_after(60min)) << "it is in use";
    EXPECT_TRUE(loaded_after(69min)) << "its time begins when it was last in use";
  }
  EXPECT_TRUE(loaded_after(69min));
  EXPECT_FALSE(loaded_after(80min));
  ASSERT_TRUE(acquire()) << "and comes again";
  EXPECT_TRUE(loaded_after(9min));
  EXPECT_FALSE(loaded_after(11min));
}

TEST_F(ModelHostTest, StaysWhereNothingElseIsSaid) {
  host(sample());
  ASSERT_TRUE(acquire());
  EXPECT_TRUE(loaded_after(100'000min));
}

TEST_F(ModelHostTest, AFailureIsToldToAllWhoWaitAndTriedAgain) {
  ModelSettings model = sample();
  model.folder = "/nowhere";
  host(model);
  for (int round = 0; round < 2; ++round) {
    auto one = asio::co_spawn(network_, host_->acquire(0), asio::use_future);
    auto two = asio::co_spawn(network_, host_->acquire(0), asio::use_future);
    network_.restart();
    network_.run();
    for (auto* failed : {&one, &two}) {
      const auto result = failed->get();
      ASSERT_FALSE(result);
      EXPECT_THAT(result.error().message, HasSubstr("/nowhere"));
    }
  }
  EXPECT_EQ(host_->loaded(0), nullptr);
}

}  // namespace
}  // namespace fathom
