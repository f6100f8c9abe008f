// What grammars accept beyond the corpus, and what they refuse to become.
#include "grammar/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace fathom {
namespace {

using testing::HasSubstr;

std::shared_ptr<const Grammar> schema(std::string_view text, const SchemaOptions& options = {}) {
  const auto json = parse_json(text, "schema");
  EXPECT_TRUE(json) << json.error().message;
  const auto grammar = Grammar::json_schema(*json, options);
  EXPECT_TRUE(grammar) << text << ": " << grammar.error().message;
  return grammar ? *grammar : *Grammar::any_json_object();
}

std::string refusal(std::string_view text) {
  const auto json = parse_json(text, "schema");
  EXPECT_TRUE(json) << json.error().message;
  const auto grammar = Grammar::json_schema(*json);
  return grammar ? "accepted" : grammar.error().message;
}

TEST(Grammar, JsonMode) {
  const auto grammar = *Grammar::any_json_object();
  for (const char* text : {"{}", R"({"a":1})", R"({"a": [1, -2.5e10, {}], "b": null, "b": "\u00e9\ud83d\uDE00"})",
                           "{\n  \"a\": [\n    true\n  ]\n}", R"({"":""})", "{ }", R"({"a":[[],[[]]]})"}) {
    EXPECT_TRUE(grammar->accepts(text)) << text;
  }
  for (const char* text : {"",
                           "[]",
                           "1",
                           R"({"a":1,})",
                           R"({"a" :1})",
                           R"({"a":01})",
                           R"({"a":"\ud800"})",
                           R"({"a":"\x"})",
                           "{\"a\":\"\n\"}",
                           "{  }",
                           R"({"a":1} )",
                           " {}",
                           R"({"a":+1})",
                           R"({"a":.5})",
                           R"({"a":1.})",
                           "{\"a\":\"\xC3\"}",
                           "{\"a\":\"\xED\xA0\x80\"}",
                           R"({"a":1e400})",
                           R"({a:1})",
                           R"({"a":nul})"}) {
    EXPECT_FALSE(grammar->accepts(text)) << text;
  }
}

TEST(Grammar, EveryEscapeOfACharacterOfAPattern) {
  const auto grammar = schema(R"({"type":"string","pattern":"^[é😀\\n\"]$"})");
  for (const char* text : {R"("é")", R"("\u00e9")", R"("\u00E9")", R"("😀")", R"("\ud83d\ude00")", R"("\uD83D\uDE00")",
                           R"("\n")", R"("\u000a")", R"("\"")", R"("\u0022")"}) {
    EXPECT_TRUE(grammar->accepts(text)) << text;
  }
  for (const char* text : {R"("")", R"("e")", R"("\u00e8")", R"("\ud83d")", R"("\ud83d\ude01")", "\"\n\"", R"("\t")",
                           R"("éé")", R"("\/")"}) {
    EXPECT_FALSE(grammar->accepts(text)) << text;
  }
}

TEST(Grammar, LengthsCountCharacters) {
  const auto grammar = schema(R"({"type":"string","minLength":2,"maxLength":3})");
  for (const char* text : {R"("ab")", R"("😀é")", R"("\ud83d\ude00\n\u0041")", R"("日本語")"}) {
    EXPECT_TRUE(grammar->accepts(text)) << text;
  }
  for (const char* text : {R"("a")", R"("😀")", R"("\ud83d\ude00")", R"("abcd")", R"("日本語!")"}) {
    EXPECT_FALSE(grammar->accepts(text)) << text;
  }
}

TEST(Grammar, WhiteSpaceIsBounded) {
  const auto grammar = schema(R"({"type":"array"})");
  EXPECT_TRUE(grammar->accepts("[\n" + std::string(64, ' ') + "1]"));
  EXPECT_FALSE(grammar->accepts("[\n" + std::string(65, ' ') + "1]"));
  EXPECT_FALSE(grammar->accepts("[  1]"));
  EXPECT_FALSE(grammar->accepts("[\n\n1]"));
}

TEST(Grammar, OtherMembersComeAfterThoseOfTheSchemaAndAreOthers) {
  const auto grammar = schema(R"({"type":"object","properties":{"a":{"type":"integer"},"b":{}},
                                  "additionalProperties":{"type":"string"}})");
  EXPECT_TRUE(grammar->accepts(R"({"a":1,"b":2,"c":"3","ab":"4","":""})"));
  EXPECT_FALSE(grammar->accepts(R"({"c":"3","a":1})"));          // the order of the schema
  EXPECT_FALSE(grammar->accepts(R"({"b":1,"a":"text"})"));       // "a" is no other member
  EXPECT_FALSE(grammar->accepts(R"({"b":1,"\u0061":"text"})"));  // nor spelled otherwise
  EXPECT_FALSE(grammar->accepts(R"({"a":1,"a":1})"));
}

TEST(Grammar, DepthIsBoundedAndEveryBeginningCanBeCompleted) {
  const auto grammar = schema(R"({"type":"array","items":{"$ref":"#"}})");
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(grammar->accepts(nested(64)));
  EXPECT_FALSE(grammar->accepts(nested(65)));
  // A member whose value would not fit any more is not begun.
  const auto chain = schema(R"({"type":"object","properties":{"next":{"$ref":"#"}},"additionalProperties":false})");
  std::string text;
  for (int i = 0; i < 63; ++i) text += R"({"next":)";
  EXPECT_TRUE(chain->accepts(text + "{}" + std::string(63, '}')));
  EXPECT_FALSE(chain->accepts(text + R"({"next":{}})" + std::string(63, '}')));
}

// Nondeterministic at every level: 2^60 stacks, if each were kept.
TEST(Grammar, AmbiguousRecursionStaysSmall) {
  const auto grammar = schema(R"({"anyOf":[{"type":"array","items":{"$ref":"#"}},
      {"type":"array","items":{"$ref":"#"},"maxItems":3}, {"type":"array","prefixItems":[{"$ref":"#"}],"items":false}]})");
  const std::string open(60, '[');
  EXPECT_TRUE(grammar->accepts(open + std::string(60, ']')));
  EXPECT_TRUE(grammar->accepts(open + "[],[],[],[]" + std::string(60, ']')));
  EXPECT_FALSE(grammar->accepts(open + "[],1" + std::string(60, ']')));
}

// Each level is twice the next one: 2^60 ways to the same null.
TEST(Grammar, WaysToTheSameAreGoneOnce) {
  Json document = {{"$ref", "#/$defs/a0"}, {"$defs", Json::object()}};
  for (int i = 0; i < 60; ++i) {
    const Json next = i == 59 ? Json{{"type", "null"}} : Json{{"$ref", fmt::format("#/$defs/a{}", i + 1)}};
    document["$defs"][fmt::format("a{}", i)]["anyOf"] = Json::array({next, next});
  }
  const auto grammar = schema(document.dump());
  EXPECT_TRUE(grammar->accepts("null"));
  EXPECT_FALSE(grammar->accepts("nul"));
}

// An object without members is read in one step: what follows it in the first alternative is made and gone before the second.
TEST(Grammar, AlternativesOfTheSameBeginningAreAllKept) {
  const auto grammar = schema(R"({"anyOf":[
      {"type":"object","properties":{"a":{"type":"object","additionalProperties":false}},"required":["a"],
       "additionalProperties":false},
      {"type":"object","properties":{"a":{"type":"object","additionalProperties":false},"c":{"type":"integer"}},
       "required":["a","c"],"additionalProperties":false}]})");
  EXPECT_TRUE(grammar->accepts(R"({"a":{}})"));
  EXPECT_TRUE(grammar->accepts(R"({"a":{},"c":1})"));
  EXPECT_FALSE(grammar->accepts(R"({"a":{},"b":1})"));
}

TEST(Grammar, LargeSchemasTakeTheTimeOfTheirSize) {
  Json chain = Json::parse(R"({"$ref":"#/$defs/a0"})");
  for (int i = 0; i < 2'000; ++i)
    chain["$defs"][fmt::format("a{}", i)] =
        Json::parse(fmt::format(R"({{"anyOf":[{{"type":"null"}},{{"$ref":"#/$defs/a{}"}}]}})", (i + 1) % 2'000));
  EXPECT_THAT(refusal(chain.dump()), HasSubstr("refers to itself"));
  chain["$defs"]["a1999"] = Json::parse(R"({"type":"boolean"})");
  EXPECT_THAT(refusal(chain.dump()), HasSubstr("1000 alternatives and references within one another"));
  std::string name;
  for (uint32_t c = 0x4E00; c < 0x4E00 + 20'000; ++c)
    name += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
             static_cast<char>(0x80 | (c & 63))};
  Json wide = Json::parse(R"({"type":"object"})");
  wide["properties"][name] = true;
  EXPECT_THAT(refusal(wide.dump()), HasSubstr("make it simpler"));
}

TEST(Grammar, OnlyObjects) {
  const auto grammar = schema(R"({"properties":{"a":{"type":"integer"}}})", {.only_objects = true});
  EXPECT_TRUE(grammar->accepts(R"({"a":1})"));
  EXPECT_FALSE(grammar->accepts("1"));
  EXPECT_TRUE(schema(R"({"properties":{"a":{"type":"integer"}}})")->accepts("1"));
}

TEST(Grammar, RefusesWithPathAndReason) {
  EXPECT_EQ(
      refusal(R"({"type":"object","properties":{"age":{"oneOf":[{"type":"integer"}]}}})"),
      "$.properties.age.oneOf: not supported; that no other alternative fits cannot be seen to while writing; anyOf "
      "is supported");
  EXPECT_EQ(refusal(R"({"allOf":[{}]})"), "$.allOf: not supported; merge the schemas into one");
  EXPECT_EQ(refusal(R"({"type":"array","uniqueItems":true})"),
            "$.uniqueItems: not supported; that all elements differ cannot be seen to while writing");
  EXPECT_EQ(refusal(R"({"typ":"array"})"), "$.typ: no keyword that is known; leave it out");
  EXPECT_EQ(refusal(R"({"type":"arry"})"),
            "$.type: found \"arry\", expected null, boolean, integer, number, string, array or object");
  EXPECT_EQ(refusal(R"x({"properties":{"a b":{"pattern":"(?=a)"}}})x"),
            "$.properties[\"a b\"].pattern: lookahead is not supported, before byte 2 of \"(?=a)\"");
  EXPECT_EQ(refusal(R"({"format":"uri"})"),
            "$.format: \"uri\" is not supported; date, time, date-time, email, uuid and ipv4 are");
  EXPECT_EQ(refusal(R"({"multipleOf":0.01})"), "$.multipleOf: found 0.01, only integers from 1 to 1000 are supported");
  EXPECT_EQ(refusal(R"({"minLength":-1})"), "$.minLength: found -1, expected an integer from 0 to 1,000,000,000");
  EXPECT_EQ(refusal(R"({"$ref":"#/$defs/a"})"),
            "$.$ref: \"#/$defs/a\" is no place in this document; expected \"#\" or \"#/$defs/…\"");
  EXPECT_EQ(refusal(R"({"$ref":"http://example.com/schema"})"),
            "$.$ref: \"http://example.com/schema\" is no place in this document; expected \"#\" or \"#/$defs/…\"");
  EXPECT_EQ(refusal(R"({"$ref":"#"})"), "$.$ref: refers to itself with no value in between");
  EXPECT_EQ(refusal(R"({"anyOf":[{"type":"null"}],"minimum":1})"),
            "$.minimum: not supported beside anyOf; move it into what anyOf names");
  EXPECT_EQ(refusal(R"({"items":[{}]})"), "$.items: a list of schemas is not supported; use prefixItems");
  EXPECT_EQ(refusal(R"({"minimum":0.1234567890123456789})"),
            "$.minimum: 0.12345678901234568 has more than the 15 digits that are accepted");
  EXPECT_EQ(refusal("3"), "$: found number, expected a schema: an object, or true or false");
  EXPECT_EQ(refusal("false"), "$: no document fulfils this, or none nested at most 64 deep");
  EXPECT_EQ(refusal(R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})"),
            "$: no document fulfils this, or none nested at most 64 deep");
  EXPECT_EQ(refusal(R"({"type":"object","minProperties":1})"),
            "$.minProperties: only supported beside additionalProperties: false; names of others may come twice");
  // All problems at once, and each once.
  EXPECT_EQ(refusal(R"({"properties":{"a":{"not":{}},"b":{"$ref":"#/properties/a"},"c":{"if":{}}}})"),
            "$.properties.a.not: not supported; name what is allowed instead\n"
            "$.properties.c.if: not supported; use anyOf");
}

TEST(Grammar, WhatStandsBesideAnEnumHolds) {
  const auto grammar = schema(R"({"enum":["ab","cd","abcd",3,7,null],"pattern":"^a","maxLength":3,"minimum":5})");
  for (const char* text : {R"("ab")", "7", "null"}) EXPECT_TRUE(grammar->accepts(text)) << text;
  for (const char* text : {R"("cd")", R"("abcd")", "3"}) EXPECT_FALSE(grammar->accepts(text)) << text;
  EXPECT_EQ(refusal(R"({"enum":["ab"],"minLength":2,"maxLength":1})"),
            "$: no document fulfils this, or none nested at most 64 deep");
}

TEST(Grammar, PatternsTogetherAreBounded) {
  Json many = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 40; ++i) {
    many["properties"].push_back(
        {"p" + std::to_string(i), {{"pattern", "^(a|aa){1," + std::to_string(900 + i) + "}$"}}});
  }
  const auto grammar = Grammar::json_schema(many);
  ASSERT_FALSE(grammar);
  EXPECT_THAT(grammar.error().message, HasSubstr(".pattern: needs more than the "));
}

TEST(Grammar, AnnotationsSayNothing) {
  const auto grammar =
      schema(R"({"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"https://example.com/a",
      "title":"t","description":"d","default":1,"examples":[1],"$comment":"c","deprecated":true,"readOnly":true,
      "writeOnly":false,"x-order":1,"type":"integer"})");
  EXPECT_TRUE(grammar->accepts("7"));
  EXPECT_FALSE(grammar->accepts("\"7\""));
}

TEST(Grammar, LimitsAreSaid) {
  const auto with = [](const char* keyword, Json value) {
    const auto grammar = Grammar::json_schema({{keyword, std::move(value)}});
    return grammar ? "accepted" : grammar.error().message;
  };
  Json values = Json::array();
  for (int i = 0; i < 2001; ++i) values.push_back(i);
  EXPECT_EQ(with("enum", values), "$.enum: expected a list of 1 to 2000 values");
  Json properties = Json::object();
  for (int i = 0; i < 1001; ++i) properties.push_back({"p" + std::to_string(i), Json::object()});
  EXPECT_EQ(with("properties", properties), "$.properties: expected an object of at most 1000 properties");
  EXPECT_THAT(with("pattern", ".*a.{40}"), HasSubstr("$.pattern: needs more than 20000 states"));
  Json wide = {{"type", "array"}, {"items", {{"enum", Json::array()}}}};
  const std::string value(3000, 'x');
  for (int i = 0; i < 1000; ++i) wide["items"]["enum"].push_back(std::to_string(i) + value);
  const auto grammar = Grammar::json_schema(wide);
  ASSERT_FALSE(grammar);
  EXPECT_EQ(grammar.error().message, "its names, values and numbers take more than 1000000 states");
}

TEST(Grammar, LargeSchemasCompile) {
  Json large = {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
  std::string text = "{";
  for (int i = 0; i < 500; ++i) {
    const std::string name = "property_" + std::to_string(i);
    large["properties"].push_back({name, {{"type", "integer"}, {"minimum", i}}});
    text += (i > 0 ? ",\"" : "\"") + name + "\":" + std::to_string(i);
  }
  const auto grammar = Grammar::json_schema(large);
  ASSERT_TRUE(grammar) << grammar.error().message;
  EXPECT_TRUE((*grammar)->accepts(text + "}"));
  EXPECT_TRUE((*grammar)->accepts(R"({"property_499":499})"));
  EXPECT_FALSE((*grammar)->accepts(R"({"property_499":498})"));
}

}  // namespace
}  // namespace fathom
