// Bodies of forms: what browsers and client libraries send, and what no one should.
#include "serve/form_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/random.h"

namespace fathom {
namespace {

using testing::HasSubstr;

const std::string kType = "multipart/form-data; boundary=edge";

std::string part(const std::string& disposition, const std::string& content, const std::string& more = "") {
  return "--edge\r\nContent-Disposition: " + disposition + "\r\n" + more + "\r\n" + content + "\r\n";
}
std::string error_of(const std::string& body, const std::string& type = kType) {
  const auto form = read_form(type, body);
  return form ? "sound" : form.error().message;
}

TEST(FormData, PartsInTheirOrder) {
  const std::string content =
      "{\"a\": 1}\r\n--edg\r\n\r\n--other\r\n\0\xff"
      "end";
  const std::string body = "ignored before\r\n" + part("form-data; name=\"purpose\"", "batch") +
                           part("form-data; name=file; filename=\"a \\\"b\\\" \xc3\xa9;.jsonl\"", content,
                                "Content-Type: application/jsonl\r\nContent-Length: 3\r\n") +
                           part("Form-Data;name=empty", "") + "--edge--\r\nignored after";
  const auto form = read_form("Multipart/Form-Data ; charset=utf-8; Boundary=\"edge\"", body);
  ASSERT_TRUE(form) << form.error().message;
  ASSERT_EQ(form->size(), 3u);
  EXPECT_EQ((*form)[0].name, "purpose");
  EXPECT_EQ((*form)[0].filename, "");
  EXPECT_EQ((*form)[0].content, "batch");
  EXPECT_EQ((*form)[1].name, "file");
  EXPECT_EQ((*form)[1].filename, "a \"b\" \xc3\xa9;.jsonl");
  EXPECT_EQ((*form)[1].content, content);
  EXPECT_EQ((*form)[2].name, "empty");
  EXPECT_EQ((*form)[2].content, "");
  EXPECT_EQ(read_form(kType, "--edge--")->size(), 0u);
}

TEST(FormData, WhatIsNoneIsRefused) {
  const std::string good = part("form-data; name=a", "x");
  EXPECT_EQ(error_of(good + "--edge--"), "sound");
  EXPECT_THAT(error_of(good, "application/json"), HasSubstr("found \"application/json\""));
  EXPECT_THAT(error_of(good, "multipart/form-data"), HasSubstr("0 bytes"));
  EXPECT_THAT(error_of(good, "multipart/form-data; boundary=" + std::string(71, 'b')), HasSubstr("71 bytes"));
  EXPECT_THAT(error_of("x"), HasSubstr("boundary"));
  EXPECT_THAT(error_of(""), HasSubstr("boundary"));
  EXPECT_THAT(error_of(good), HasSubstr("cut off"));
  EXPECT_THAT(error_of(good.substr(0, good.size() - 4)), HasSubstr("cut off"));
  EXPECT_THAT(error_of("--edge"), HasSubstr("cut off"));
  EXPECT_THAT(error_of("--edge\r\n--edge--"), HasSubstr("no header"));
  EXPECT_THAT(error_of("--edge\r\nno header\r\n\r\n\r\n--edge--"), HasSubstr("is none"));
  EXPECT_THAT(error_of(part("attachment; name=a", "x") + "--edge--"), HasSubstr("form-data"));
  EXPECT_THAT(error_of(part("form-data; filename=a", "x") + "--edge--"), HasSubstr("no name"));
  EXPECT_THAT(error_of(part("form-data; name=a", "x", "Long: " + std::string(9000, 'x') + "\r\n") + "--edge--"),
              HasSubstr("8192"));
  std::string many;
  for (int i = 0; i < 65; ++i) many += good;
  EXPECT_THAT(error_of(many + "--edge--"), HasSubstr("more than 64"));
}

// Whatever comes is taken or refused, and parts lie within the body.
TEST(FormData, AnyBytes) {
  TestRandom random(7);
  const std::string pieces[] = {"--edge", "--", "\r\n", "\r\n\r\n", "Content-Disposition: form-data; name=\"a\"",
                                "\"",     ";",  "x",    "\n",       std::string("\0", 1)};
  int64_t sound = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string body = i % 2 ? "--edge\r\n" : "";
    for (int64_t k = random.below(13); k > 0; --k) body += pieces[static_cast<size_t>(random.below(10))];
    if (i % 3) body += "\r\n--edge--";
    const auto form = read_form(kType, body);
    if (!form) continue;
    ++sound;
    for (const FormPart& p : *form) {
      ASSERT_GE(p.content.data(), body.data());
      ASSERT_LE(p.content.data() + p.content.size(), body.data() + body.size());
    }
  }
  EXPECT_GT(sound, 100);
}

}  // namespace
}  // namespace fathom
