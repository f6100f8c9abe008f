// Grammars are compiled once for each schema, and no more of them are kept than may be.
#include "grammar/grammar_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace fathom {
namespace {

Json schema_of(int number) { return {{"type", "integer"}, {"minimum", number}}; }

TEST(GrammarCache, TheSameSchemaIsTheSameGrammar) {
  GrammarCache cache;
  const auto first = cache.json_schema(schema_of(1)).value();
  EXPECT_EQ(cache.json_schema(schema_of(1)).value(), first);
  EXPECT_NE(cache.json_schema(schema_of(2)).value(), first);
  EXPECT_NE(cache.any_json_object().value(), cache.json_schema(Json::object()).value());
  // The order of members is the order in which they are written.
  const Json ab = Json::parse(R"({"type":"object","properties":{"a":true,"b":true}})");
  const Json ba = Json::parse(R"({"type":"object","properties":{"b":true,"a":true}})");
  EXPECT_NE(cache.json_schema(ab).value(), cache.json_schema(ba).value());
  EXPECT_EQ(cache.size(), 6u);
}

TEST(GrammarCache, ToolsAreTheSameWithTheSameOptions) {
  GrammarCache cache;
  const std::vector<Tool> tools = {{"f", "", {{"type", "object"}}, {}}};
  const auto first = cache.tool_calls(ChatFormat::kV31, tools).value();
  EXPECT_EQ(cache.tool_calls(ChatFormat::kV31, tools).value(), first);
  for (const ToolCallOptions& options : {ToolCallOptions{.optional = true}, ToolCallOptions{.parallel = false},
                                         ToolCallOptions{.name = "f"}, ToolCallOptions{.strict = {"f"}}})
    EXPECT_NE(cache.tool_calls(ChatFormat::kV31, tools, options).value(), first);
  EXPECT_EQ(cache.size(), 5u);
}

TEST(GrammarCache, TheLeastRecentlyUsedGoesFirst) {
  GrammarCache cache(2);
  const auto one = cache.json_schema(schema_of(1)).value(), two = cache.json_schema(schema_of(2)).value();
  EXPECT_EQ(cache.json_schema(schema_of(1)).value(), one);
  cache.json_schema(schema_of(3)).value();
  EXPECT_EQ(cache.size(), 2u);
  EXPECT_EQ(cache.json_schema(schema_of(1)).value(), one);
  EXPECT_NE(cache.json_schema(schema_of(2)).value(), two) << "it was dropped, and compiled anew";
  EXPECT_TRUE(two->accepts("5")) << "who holds it keeps it";
}

TEST(GrammarCache, TextsAreBoundedToo) {
  GrammarCache cache(100, 200);
  const Json small = schema_of(1);
  cache.json_schema(small).value();
  const Json large = {{"const", std::string(300, 'x')}};
  EXPECT_TRUE(cache.json_schema(large).value()->accepts(large["const"].dump())) << "used, not kept";
  EXPECT_EQ(cache.size(), 0u);
  cache.json_schema(small).value();
  EXPECT_EQ(cache.size(), 1u);
}

TEST(GrammarCache, ErrorsAreNotKept) {
  GrammarCache cache;
  EXPECT_FALSE(cache.json_schema({{"oneOf", Json::array()}}));
  EXPECT_EQ(cache.size(), 0u);
}

TEST(GrammarCache, ThreadsShareIt) {
  GrammarCache cache(3);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const int number = (i * 7 + t) % 6;
        const auto grammar = cache.json_schema(schema_of(number));
        wrong +=
            !grammar || !(*grammar)->accepts(std::to_string(number)) || (*grammar)->accepts(std::to_string(number - 1));
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(cache.size(), 3u);
}

}  // namespace
}  // namespace fathom
