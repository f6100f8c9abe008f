// Masks, with a small vocabulary and the published one: random walks always end in a valid document.
#include "grammar/matcher.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>

#include "base/quote.h"
#include "grammar/walk.h"
#include "support/random.h"
#include "text/chat_parser.h"

namespace fathom {
namespace {

std::shared_ptr<const Grammar> schema(const char* text) {
  const auto grammar = Grammar::json_schema(*parse_json(text, "schema"));
  EXPECT_TRUE(grammar) << grammar.error().message;
  return *grammar;
}

struct Example {
  const char* schema;
  std::function<bool(const Json&)> holds;
};

bool is_person(const Json& person) {
  return person.is_object() && person.at("name").is_string() && person.size() == 1 + person.count("friends") &&
         (!person.contains("friends") || std::ranges::all_of(person["friends"], is_person));
}

const std::vector<Example>& examples() {
  static const std::vector<Example> all = {
      {R"({"type":"object"})", [](const Json& x) { return x.is_object(); }},
      {R"({})", [](const Json&) { return true; }},
      {R"({"type":"object","properties":{"name":{"type":"string"},"friends":{"type":"array","items":{"$ref":"#"}}},
           "required":["name"],"additionalProperties":false})",
       is_person},
      {R"({"type":"array","items":{"type":"integer","minimum":-7,"maximum":1234},"minItems":2,"maxItems":40})",
       [](const Json& x) {
         return x.size() >= 2 && x.size() <= 40 && std::ranges::all_of(x, [](const Json& i) {
                  return i.is_number_integer() && -7 <= i.get<int>() && i.get<int>() <= 1234;
                });
       }},
      {R"({"type":"object","properties":{"code":{"type":"string","pattern":"^[A-Z]{2}-\\d{3,30}$"},
           "text":{"type":"string","minLength":3,"maxLength":60},"share":{"type":"number","minimum":0,"exclusiveMaximum":1},
           "day":{"type":"string","format":"date"}},"required":["code","text","share","day"],"additionalProperties":false})",
       [](const Json& x) {
         const std::string code = x.at("code"), day = x.at("day"), text = x.at("text");
         const auto length = std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; });
         return code.size() >= 6 && code[2] == '-' && day.size() == 10 && day[4] == '-' && length >= 3 &&
                length <= 60 && 0 <= x.at("share").get<double>() && x.at("share").get<double>() < 1 && x.size() == 4;
       }},
      {R"({"anyOf":[{"type":"object","properties":{"kind":{"const":"a"},"value":{"type":"integer"}},
           "required":["kind","value"],"additionalProperties":false},
           {"type":"object","properties":{"kind":{"enum":["a","b"]},"value":{"type":"string"}},
           "required":["kind","value"],"additionalProperties":false}]})",
       [](const Json& x) { return (x.at("kind") == "a" && x.at("value").is_number()) || x.at("value").is_string(); }},
  };
  return all;
}

TEST(GrammarMatcher, RandomWalksEndInValidDocuments) {
  TestRandom random(2);
  for (const Vocabulary* vocabulary : {&small(), &published()}) {
    for (const Example& example : examples()) {
      const auto grammar = schema(example.schema);
      for (int i = 0; i < 25; ++i) {
        GrammarMatcher matcher(grammar, vocabulary->table);
        const std::string text = walk(matcher, *vocabulary->table, random, 60);
        ASSERT_TRUE(grammar->accepts(text)) << text;
        const auto document = parse_json(text, "walk");
        ASSERT_TRUE(document) << text << "\n" << document.error().message;
        ASSERT_TRUE(example.holds(*document)) << example.schema << "\n" << text;
      }
    }
  }
}

// The mask holds exactly the tokens that accept takes.
void expect_mask_is_exact(const GrammarMatcher& matcher, const TokenTable& table) {
  TokenMask mask(table.mask_words());
  matcher.allowed(mask);
  size_t wrong = 0;
  for (int32_t id = 0; id < table.vocab_size() && wrong < 10; ++id) {
    GrammarMatcher copy = matcher;
    if (copy.accept(id) == has_bit(mask, id)) continue;
    ADD_FAILURE() << "token " << id << " " << in_quotes(table.token_bytes(id)) << " in the mask: " << has_bit(mask, id);
    ++wrong;
  }
}

TEST(GrammarMatcher, MaskIsWhatAcceptTakes) {
  TestRandom random(3);
  for (const Example& example : examples()) {
    for (int i = 0; i < 3; ++i) {
      GrammarMatcher matcher(schema(example.schema), small().table);
      walk(matcher, *small().table, random, 40,
           [&](const GrammarMatcher& now, std::string_view) { expect_mask_is_exact(now, *small().table); });
    }
    // Of the published vocabulary, with its long tokens, a few positions.
    GrammarMatcher matcher(schema(example.schema), published().table);
    walk(matcher, *published().table, random, 10, [&](const GrammarMatcher& now, std::string_view) {
      if (now.tokens() % 8 == 5) expect_mask_is_exact(now, *published().table);
    });
  }
}

// Around the horizon of the cache, and where runs of text end.
TEST(GrammarMatcher, MaskIsExactWhereLengthsEnd) {
  for (const char* text :
       {R"({"type":"string","maxLength":100})", R"({"type":"string","minLength":30,"maxLength":40})",
        R"({"type":"string","pattern":"^[a-z ]{0,70}$"})", R"({"type":"string","pattern":"^ *é? *$"})"}) {
    GrammarMatcher matcher(schema(text), published().table);
    const auto space = published().tokenizer->id_of(" ");
    ASSERT_TRUE(matcher.accept(*published().tokenizer->id_of("\"")));
    for (int i = 0; i < 100 && !matcher.finished(); ++i) {
      if (i % 19 == 0 || i == 69 || i == 75) expect_mask_is_exact(matcher, *published().table);
      if (!matcher.accept(*space)) break;
    }
  }
}

TEST(GrammarMatcher, CachedMasksAreTheSameAsNewOnes) {
  TestRandom random(4);
  const Example& example = examples()[4];
  const auto shared = schema(example.schema);
  for (int i = 0; i < 20; ++i) {
    GrammarMatcher matcher(shared, small().table), fresh(schema(example.schema), small().table);
    while (!matcher.finished()) {
      const std::vector<int32_t> tokens = allowed_tokens(matcher, *small().table);
      ASSERT_EQ(tokens, allowed_tokens(fresh, *small().table));
      const int32_t token = tokens[static_cast<size_t>(random.below(static_cast<int64_t>(tokens.size())))];
      ASSERT_TRUE(matcher.accept(token));
      ASSERT_TRUE(fresh.accept(token));
      if (matcher.tokens() > 200) break;
    }
  }
}

TEST(GrammarMatcher, RollbackIsReplayAndCopiesAreIndependent) {
  TestRandom random(5);
  const auto grammar = schema(examples()[2].schema);
  const TokenTable& table = *small().table;
  GrammarMatcher matcher(grammar, small().table);
  std::vector<int32_t> taken;
  for (int step = 0; step < 400; ++step) {
    if (matcher.finished() || random.below(4) == 0) {
      const int64_t back = random.below(matcher.tokens() + 1);
      const GrammarMatcher before = matcher;
      matcher.rollback(back);
      EXPECT_EQ(before.tokens(), static_cast<int64_t>(taken.size()));
      taken.resize(taken.size() - static_cast<size_t>(back));
      GrammarMatcher replay(grammar, small().table);
      for (const int32_t token : taken) ASSERT_TRUE(replay.accept(token));
      ASSERT_EQ(allowed_tokens(matcher, table), allowed_tokens(replay, table));
      ASSERT_EQ(matcher.complete(), replay.complete());
      continue;
    }
    const std::vector<int32_t> tokens = allowed_tokens(matcher, table);
    const int32_t token = tokens[static_cast<size_t>(random.below(static_cast<int64_t>(tokens.size())))];
    GrammarMatcher copy = matcher;
    ASSERT_TRUE(matcher.accept(token));
    ASSERT_EQ(allowed_tokens(copy, table), tokens);
    taken.push_back(token);
  }
  GrammarMatcher untouched(grammar, small().table);
  EXPECT_FALSE(untouched.accept(*small().tokenizer->id_of("]")));
  EXPECT_EQ(untouched.tokens(), 0);
  EXPECT_TRUE(untouched.accept(*small().tokenizer->id_of("{")));
}

TEST(GrammarMatcher, LongAnswersAreReleasedWithoutRecursion) {
  const auto grammar = Grammar::regex("a*");
  GrammarMatcher matcher(*grammar, small().table);
  const int32_t a = *small().tokenizer->id_of("a");
  for (int i = 0; i < 1'000'000; ++i) ASSERT_TRUE(matcher.accept(a));
  EXPECT_TRUE(matcher.complete());
  EXPECT_FALSE(matcher.finished());
}

TEST(GrammarMatcher, APatternThatHasEndedIsFinished) {
  for (const auto& [pattern, text] : {std::pair("abc", "abc"), {"a{2}", "aa"}, {"", ""}, {"(ab|c)", "c"}}) {
    SCOPED_TRACE(pattern);
    const auto grammar = Grammar::regex(pattern);
    ASSERT_TRUE(grammar) << grammar.error().message;
    GrammarMatcher matcher(*grammar, small().table);
    for (std::string_view rest = text; !rest.empty();) {
      EXPECT_FALSE(matcher.finished()) << rest;
      const int32_t token = token_towards(rest, allowed_tokens(matcher, *small().table), *small().table);
      ASSERT_TRUE(matcher.accept(token)) << rest;
      rest.remove_prefix(small().table->token_bytes(token).size());
    }
    EXPECT_TRUE(matcher.finished());
    EXPECT_EQ(allowed_tokens(matcher, *small().table), std::vector<int32_t>{});
  }
}

// However many answers a grammar has served: nothing of them stays.
TEST(GrammarMatcher, AnswersLeaveNoMemoryBehind) {
  const auto grammar = Grammar::json_schema(
      {{"type", "array"},
       {"items", {{"type", "object"}, {"properties", {{"a", {{"type", "string"}, {"maxLength", 1000}}}}}}}});
  ASSERT_TRUE(grammar) << grammar.error().message;
  const auto answers = [&](int count) {
    for (int i = 0; i < count; ++i) {
      GrammarMatcher matcher(*grammar, small().table);
      TestRandom random(3);  // each is the same: there is nothing new to remember
      walk(matcher, *small().table, random, 100);
    }
    return static_cast<int64_t>(mallinfo2().uordblks);
  };
  const int64_t warm = answers(100);
  EXPECT_LT(answers(300) - warm, 100'000) << "bytes";
}

TEST(GrammarMatcher, OneGrammarInManyThreads) {
  const auto grammar = schema(examples()[4].schema);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      TestRandom random(t);
      for (int i = 0; i < 5; ++i) {
        GrammarMatcher matcher(grammar, small().table);
        EXPECT_TRUE(grammar->accepts(walk(matcher, *small().table, random, 40)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(GrammarMatcher, AddedTokensAreNoText) {
  GrammarMatcher matcher(*Grammar::any_json_object(), published().table);
  const auto begin = published().tokenizer->encode("{\"a\":\"b");
  for (const int32_t token : *begin) ASSERT_TRUE(matcher.accept(token));
  for (const char* added : {"<｜User｜>", "<think>", "<｜end▁of▁sentence｜>", "<｜tool▁call▁end｜>"}) {
    const auto id = published().tokenizer->id_of(added);
    ASSERT_TRUE(id) << added;
    EXPECT_FALSE(matcher.accept(*id)) << added;
  }
}

// ---- tool calls

std::vector<Tool> tools() {
  return *parse_tools(R"([{"type":"function","function":{"name":"get_weather","parameters":{"type":"object",
      "properties":{"city":{"type":"string"},"days":{"type":"integer","minimum":1,"maximum":9},"note":{"type":["string","null"]}},
      "required":["city","days"],"additionalProperties":false}}},
      {"type":"function","function":{"name":"stop","parameters":{"type":"object","properties":{}}}}])");
}

bool fits(const ChatReply::Call& call) {
  const auto arguments = parse_json(call.arguments, "arguments");
  if (!call.complete || !arguments || !arguments->is_object()) return false;
  if (call.name == "stop") return true;
  return call.name == "get_weather" && arguments->at("city").is_string() && arguments->at("days").is_number_integer() &&
         arguments->at("days") >= 1 && arguments->at("days") <= 9 && arguments->size() == 2 + arguments->count("note");
}

TEST(ToolGrammar, WhatTheTemplatesWriteIsAccepted) {
  Message message{.role = Role::kAssistant};
  message.tool_calls = {{"1", "get_weather", R"({"city": "Köln \"am\" Rhein", "days": 3, "note": null})"},
                        {"2", "stop", "{}"}};
  for (const ChatFormat format : {ChatFormat::kV31, ChatFormat::kDsml}) {
    const Message user{.role = Role::kUser, .content = "?"};
    const ChatOptions open{.add_generation_prompt = true};
    const std::string before = *render_chat(format, {user}, {}, open);
    const std::string whole = *render_chat(format, {user, message}, {}, {.add_generation_prompt = false});
    ASSERT_TRUE(whole.starts_with(before));
    std::string calls = whole.substr(before.size());
    calls.erase(calls.find("<｜end▁of▁sentence｜>"));
    const auto grammar = [&](const ToolCallOptions& options) {
      const auto made = Grammar::tool_calls(format, tools(), options);
      EXPECT_TRUE(made) << made.error().message;
      return *made;
    };
    const std::vector<std::string> strict{"get_weather", "stop"};
    EXPECT_TRUE(grammar({})->accepts(calls)) << calls;
    EXPECT_TRUE(grammar({.strict = strict})->accepts(calls)) << calls;
    EXPECT_TRUE(grammar({.optional = true, .strict = strict})->accepts("Let me look. < <｜" + calls));
    EXPECT_TRUE(grammar({.optional = true})->accepts("No call.\n\n<｜"));
    EXPECT_FALSE(grammar({.optional = true})->accepts("Half.\n\n" + calls.substr(0, calls.size() - 3)));
    EXPECT_FALSE(grammar({.parallel = false})->accepts(calls));
    EXPECT_FALSE(grammar({.name = "stop"})->accepts(calls));
    EXPECT_FALSE(grammar({})->accepts("Text." + calls));
    std::string wrong = calls;
    wrong.replace(wrong.find('3'), 1, "0");
    EXPECT_TRUE(grammar({})->accepts(wrong));
    EXPECT_FALSE(grammar({.strict = strict})->accepts(wrong));
    // By tokens, with marks as the tokenizer has them.
    GrammarMatcher matcher(grammar({.strict = strict}), published().table);
    const auto ids = published().tokenizer->encode(calls);
    for (const int32_t token : *ids) {
      TokenMask mask(published().table->mask_words());
      matcher.allowed(mask);
      ASSERT_TRUE(has_bit(mask, token)) << published().tokenizer->token_bytes(token);
      ASSERT_TRUE(matcher.accept(token)) << published().tokenizer->token_bytes(token);
    }
    EXPECT_TRUE(matcher.finished());
  }
}

TEST(ToolGrammar, RandomWalksAreReadAsCalls) {
  TestRandom random(6);
  for (const ChatFormat format : {ChatFormat::kV31, ChatFormat::kDsml}) {
    for (const bool strict : {false, true}) {
      ToolCallOptions options;
      if (strict) options.strict = {"get_weather"};
      const auto grammar = Grammar::tool_calls(format, tools(), options);
      ASSERT_TRUE(grammar) << grammar.error().message;
      for (const Vocabulary* vocabulary : {&small(), &published()}) {
        for (int i = 0; i < 8; ++i) {
          GrammarMatcher matcher(*grammar, vocabulary->table);
          const std::string text = walk(matcher, *vocabulary->table, random, 120);
          const ChatReply reply = parse_chat_reply(format, false, text);
          EXPECT_EQ(reply.content, "") << text;
          ASSERT_FALSE(reply.calls.empty()) << text;
          for (const auto& call : reply.calls) {
            EXPECT_TRUE(strict ? fits(call) : call.complete && Json::accept(call.arguments)) << text;
          }
        }
      }
    }
  }
}

// A string of the arguments must not be taken for the mark that ends them.
TEST(ToolGrammar, ArgumentsCannotSpellMarks) {
  const auto v31 = *Grammar::tool_calls(ChatFormat::kV31, tools(), {.name = "stop"});
  const std::string head = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>stop<｜tool▁sep｜>{\"a\":\"";
  const std::string tail = "\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  EXPECT_TRUE(v31->accepts(head + "a < b, \\u003c｜, <\\uff5c, <<|" + tail));
  EXPECT_FALSE(v31->accepts(head + "<｜" + tail));
  EXPECT_FALSE(v31->accepts(head + "<<｜" + tail));
  const auto dsml = *Grammar::tool_calls(ChatFormat::kDsml, tools(), {.name = "stop"});
  const std::string dsml_head =
      "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"stop\">\n<｜DSML｜parameter name=\"a\" string=\"true\">";
  const std::string dsml_tail = "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>";
  EXPECT_TRUE(dsml->accepts(dsml_head + "a </b> \" \\ \n <｜" + dsml_tail));
  EXPECT_FALSE(dsml->accepts(dsml_head + "</｜" + dsml_tail));
  EXPECT_FALSE(dsml->accepts(dsml_head + "<</｜x" + dsml_tail));
}

TEST(ToolGrammar, RefusesWithTheFunctionsName) {
  auto bad = tools();
  bad[0].parameters["properties"]["city"] = {{"not", Json::object()}};
  const auto message = [&](const ToolCallOptions& options) {
    const auto grammar = Grammar::tool_calls(ChatFormat::kDsml, bad, options);
    return grammar ? "accepted" : grammar.error().message;
  };
  EXPECT_EQ(message({}), "accepted");
  EXPECT_EQ(message({.strict = {"get_weather"}}),
            "get_weather.parameters.properties.city.not: not supported; name what is allowed instead");
  EXPECT_EQ(message({.name = "go"}), "tool_choice: \"go\" is none of the 2 functions");
  bad.clear();
  EXPECT_EQ(message({}), "tools: there is none to call");
}

}  // namespace
}  // namespace fathom
