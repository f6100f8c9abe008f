// Percentiles and means against values worked out by hand.
#include "load/statistics.h"

#include <gtest/gtest.h>

namespace fathom::load {
namespace {

TEST(LoadStatistics, OrderStatisticsByHand) {
  // 0, 10, … 1000, given in falling order: the quantile q lies at 1000 q.
  std::vector<double> values;
  for (int i = 100; i >= 0; --i) values.push_back(10 * i);
  const Summary s = summarize(values);
  EXPECT_EQ(s.count, 101);
  EXPECT_DOUBLE_EQ(s.mean, 500);
  EXPECT_DOUBLE_EQ(s.min, 0);
  EXPECT_DOUBLE_EQ(s.median, 500);
  EXPECT_DOUBLE_EQ(s.p90, 900);
  EXPECT_DOUBLE_EQ(s.p95, 950);
  EXPECT_DOUBLE_EQ(s.p99, 990);
  EXPECT_NEAR(s.p999, 999, 1e-9);
  EXPECT_DOUBLE_EQ(s.max, 1000);
}

TEST(LoadStatistics, BetweenTwoValuesLinearly) {
  const std::vector<double> values = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 3);    // at 1.5: between 2 and 4
  EXPECT_DOUBLE_EQ(quantile(values, 0.9), 6.8);  // at 2.7: 4 + 0.7 · 4
  EXPECT_DOUBLE_EQ(quantile(values, 1), 8);
  EXPECT_DOUBLE_EQ(summarize(values).mean, 3.75);
}

TEST(LoadStatistics, OneValueAndNone) {
  const Summary one = summarize({7});
  EXPECT_EQ(one.count, 1);
  for (const double x : {one.mean, one.min, one.median, one.p90, one.p999, one.max}) EXPECT_EQ(x, 7);
  EXPECT_EQ(summarize({}).count, 0);
  EXPECT_EQ(summarize({}).p99, 0);
}

}  // namespace
}  // namespace fathom::load
