#include "api/tokenize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/support.h"

namespace fathom {
namespace {

using testing::HasSubstr;

class TokenizeTest : public testing::Test {
 protected:
  std::unique_ptr<Engine> engine = open_sample();
  ApiContext context{.engine = *engine, .model = "m"};
  Json tokenized(const char* body) {
    const auto json = tokenize_json(Json::parse(body), context);
    EXPECT_TRUE(json) << json.error().message;
    return json ? *json : Json();
  }
};

TEST_F(TokenizeTest, TextMessagesAndBack) {
  const Json plain = tokenized(R"({"prompt": "What is 2?", "add_special_tokens": false, "return_token_strs": true})");
  EXPECT_EQ(plain["tokens"], Json(engine->tokenizer().encode("What is 2?").value()));
  EXPECT_EQ(plain["count"], plain["tokens"].size());
  EXPECT_EQ(plain["max_model_len"], engine->context());
  std::string joined;
  for (const Json& text : plain["token_strs"]) joined += text.get<std::string>();
  EXPECT_EQ(joined, "What is 2?");
  EXPECT_FALSE(tokenized(R"({"content": "x"})").contains("token_strs"));
  EXPECT_EQ(tokenized(R"({"content": "What is 2?"})")["count"].get<size_t>(), plain["tokens"].size() + 1);
  EXPECT_EQ(tokenized(R"({"content": "", "add_special_tokens": false})")["tokens"], Json::array());
  const Json body = Json::parse(R"({"messages": [{"role": "user", "content": "hello"}]})");
  EXPECT_EQ(tokenize_json(body, context).value()["tokens"],
            Json(read_chat_call(body, context).value().prompts[0].generation.prompt));
  const Json back = detokenize_json({{"tokens", plain["tokens"]}}, context).value();
  EXPECT_EQ(back["prompt"], "What is 2?");
  EXPECT_EQ(back["content"], "What is 2?");
  EXPECT_EQ(detokenize_json({{"tokens", Json::array()}}, context).value()["prompt"], "");
}

TEST_F(TokenizeTest, WrongBodiesAreNamed) {
  EXPECT_THAT(tokenize_json(Json::parse("{}"), context).error().message, HasSubstr("prompt, content nor messages"));
  EXPECT_EQ(tokenize_json(Json::parse("[]"), context).error().status, 400);
  EXPECT_EQ(tokenize_json(Json::parse(R"({"prompt": 5})"), context).error().param, "prompt");
  EXPECT_EQ(tokenize_json(Json::parse(R"({"prompt": "", "add_special_tokens": 5})"), context).error().param,
            "add_special_tokens");
  EXPECT_EQ(tokenize_json(Json::parse(R"({"messages": 5})"), context).error().param, "messages");
  EXPECT_EQ(detokenize_json(Json::parse("{}"), context).error().param, "tokens");
  for (const char* tokens : {"[-1]", "[1e5]", "[\"a\"]", "[2147483648]", "[99999999999999999999]"})
    EXPECT_THAT(detokenize_json({{"tokens", Json::parse(tokens)}}, context).error().message, HasSubstr("ids from 0 to"))
        << tokens;
}

}  // namespace
}  // namespace fathom
