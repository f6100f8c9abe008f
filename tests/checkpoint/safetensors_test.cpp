#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "support/checkpoint_builder.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

std::string parse_error(std::string_view bytes) {
  const auto file = SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "x.safetensors");
  return file ? "no error" : file.error().message;
}
std::string header_error(std::string_view header, std::string_view data = "") {
  return parse_error(safetensors_bytes(header, data));
}

TEST(Safetensors, ReadsTensorsOfAnyOrder) {
  const std::string bytes = safetensors_bytes(
      R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},"__metadata__":{"format":"pt","by":"hand"},)"
      R"("a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}   )",
      std::string("\0\0\x80\x3f\0\0\0\x40xyz", 11));
  const auto file = SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "x");
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(file->tensors()[0].name, "a") << "in order of offset";
  EXPECT_EQ(file->tensors()[0].dtype, DType::kF32);
  EXPECT_THAT(file->tensors()[0].shape, ElementsAre(2, 1));
  EXPECT_EQ(file->tensors()[0].count(), 2);
  const TensorEntry* b = file->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(b->bytes.data()), b->bytes.size()), "xyz");
  EXPECT_EQ(file->find("c"), nullptr);
  EXPECT_EQ(file->find(""), nullptr);
  EXPECT_THAT(file->metadata(), ElementsAre(Pair("by", "hand"), Pair("format", "pt")));
}

TEST(Safetensors, ScalarsAndEmptyTensorsAreLegal) {
  EXPECT_EQ(header_error("{}"), "no error");
  EXPECT_EQ(header_error(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "1234"), "no error");
  EXPECT_EQ(header_error(R"({"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}})"), "no error");
  EXPECT_EQ(header_error(R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                         R"("e":{"dtype":"F32","shape":[0],"data_offsets":[2,2]},)"
                         R"("f":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
                         R"("u":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                         "1234"),
            "no error");
}

TEST(Safetensors, FilesThatAreNoneAreRefused) {
  EXPECT_THAT(parse_error(""), HasSubstr("found 0 bytes, expected at least 8"));
  EXPECT_THAT(parse_error("1234567"), HasSubstr("found 7 bytes"));
  EXPECT_THAT(parse_error(std::string(8, '\0')), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(parse_error(std::string("\x02\0\0\0\0\0\0\0{", 9)), HasSubstr("cut short"));
  EXPECT_THAT(parse_error(std::string("\x02\0\0\0\0\0\0\0[]", 10)), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(parse_error(std::string(64, '\xff')), HasSubstr("header length is 18446744073709551615"));
  EXPECT_THAT(parse_error("GGUF\x03 this is some other format entirely"), HasSubstr("not a safetensors file"));
  // 200,000,000: refused by its length alone.
  EXPECT_THAT(parse_error(std::string("\0\xc2\xeb\x0b\0\0\0\0{}", 10)), HasSubstr("expected at most 100000000"));
  // 100,000,000 is allowed, but not there.
  EXPECT_THAT(parse_error(std::string("\0\xe1\xf5\x05\0\0\0\0{}", 10)), HasSubstr("takes 100000000 bytes but only 2"));
}

TEST(Safetensors, BrokenHeadersAreRefused) {
  EXPECT_THAT(header_error("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(header_error("{} x"), HasSubstr("not valid JSON"));
  EXPECT_THAT(header_error(std::string("{}\0x", 4)), HasSubstr("NUL"));
  EXPECT_THAT(header_error("{\"\xff\":{}}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(header_error(R"({"a":1})"), HasSubstr("found 1, expected an object for tensor \"a\""));
  EXPECT_THAT(header_error(R"({"a":[)" + std::string(100'000, '[')), HasSubstr("found an array, expected an object"));
  EXPECT_THAT(header_error(R"({"a":{}})"), HasSubstr("tensor \"a\": no \"dtype\""));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[0]}})"), HasSubstr("no \"data_offsets\""));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"F8_E3M4","shape":[0],"data_offsets":[0,0]}})"),
              HasSubstr("tensor \"a\": unknown dtype \"F8_E3M4\""));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}})"), HasSubstr("found -1"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,0]}})"), HasSubstr("found \"1.5\""));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":["2"],"data_offsets":[0,0]}})"), HasSubstr("found \"2\""));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}})"), HasSubstr("two byte offsets"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}})"), HasSubstr("found 0"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","extra":1}})"), HasSubstr("the key \"extra\""));
  EXPECT_THAT(header_error(R"({"__metadata__":{"a":1}})"), HasSubstr("a string in \"__metadata__\""));
  std::string rank = "0";
  for (int i = 0; i < 40; ++i) rank += ",1";
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[)" + rank + R"(],"data_offsets":[0,0]}})"),
              HasSubstr("more than 32 dimensions"));
}

TEST(Safetensors, DuplicateKeysAreRefused) {
  const std::string a = R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(header_error("{" + a + "," + a + "}"), HasSubstr("tensor \"a\" appears twice"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
              HasSubstr("\"dtype\" appears twice"));
  EXPECT_THAT(header_error(R"({"__metadata__":{},"__metadata__":{}})"), HasSubstr("appears twice"));
  EXPECT_THAT(header_error(R"({"__metadata__":{"k":"1","k":"2"}})"), HasSubstr("appears twice"));
}

std::string two_tensors(int begin_a, int end_a, int begin_b, int end_b) {
  return fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},)"
                     R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                     end_a - begin_a, begin_a, end_a, end_b - begin_b, begin_b, end_b);
}

TEST(Safetensors, TensorsMustTileTheData) {
  EXPECT_EQ(header_error(two_tensors(0, 2, 2, 4), "1234"), "no error");
  EXPECT_THAT(header_error(two_tensors(0, 2, 1, 4), "1234"), HasSubstr("overlaps"));
  EXPECT_THAT(header_error(two_tensors(0, 1, 2, 4), "1234"), HasSubstr("hole"));
  EXPECT_THAT(header_error(two_tensors(1, 2, 2, 4), "1234"), HasSubstr("hole"));
  EXPECT_THAT(header_error(two_tensors(0, 2, 2, 4), "12345"), HasSubstr("unexpected bytes at the end"));
  EXPECT_THAT(header_error(two_tensors(0, 2, 2, 4), "123"), HasSubstr("cut short"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}})", "123"),
              HasSubstr("do not hold F32 [1], which takes 4 bytes"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}})", "12"), HasSubstr("do not hold"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,0]}})", "1"),
              HasSubstr("do not hold"));
}

TEST(Safetensors, OverflowingShapesAreRefused) {
  for (const char* shape :
       {"4294967296,4294967296", "9223372036854775807,2", "4611686018427387904,8,0", "2305843009213693952"})
    EXPECT_THAT(header_error(fmt::format(R"({{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,0]}}}})", shape)),
                HasSubstr("larger than any file"))
        << shape;
  EXPECT_THAT(header_error(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})"),
              HasSubstr("found 18446744073709551615"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,0]}})"),
              HasSubstr("found \"18446744073709551616\""));
}

TEST(Safetensors, NamesInMessagesAreEscapedAndCut) {
  const std::string error = header_error("{\"" + std::string(100'000, 'n') + "\":1}");
  EXPECT_LT(error.size(), 400u);
  EXPECT_LT(header_error("{\"" + std::string(100'000, 'n')).size(), 400u) << "an unterminated name";
  EXPECT_THAT(header_error(R"({"a\u001b[31m":1})"), HasSubstr("\\x1b"));
}

// --- Writing
// ----------------------------------------------------------------------------------------------------------

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(SafetensorsWriter, WhatItWritesIsReadBack) {
  const TempDir dir;
  auto writer = SafetensorsWriter::create(
      dir / "a.safetensors",
      {{"weights\"é", DType::kF32, {2}}, {"empty", DType::kBF16, {0, 3}}, {"scalar", DType::kU8, {}}},
      {{"format", "pt"}, {"step", "7"}});
  ASSERT_TRUE(writer) << writer.error().message;
  ASSERT_TRUE(writer->write(bytes_of("abc")));
  ASSERT_TRUE(writer->write(bytes_of("defghi")));
  EXPECT_FALSE(std::filesystem::exists(dir / "a.safetensors")) << "nothing under the final name before finish";
  ASSERT_TRUE(writer->finish());

  const auto file = SafetensorsFile::open(dir / "a.safetensors");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->metadata().at("step"), "7");
  const TensorEntry* weights = file->find("weights\"é");
  ASSERT_NE(weights, nullptr);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(weights->bytes.data()), 8), "abcdefgh");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(weights->bytes.data()) % 8, 0u) << "the data begin aligned";
  EXPECT_EQ(std::to_integer<char>(file->find("scalar")->bytes[0]), 'i');
  EXPECT_THAT(file->find("empty")->shape, ElementsAre(0, 3));
  EXPECT_EQ(file->file_bytes(), std::filesystem::file_size(dir / "a.safetensors"));
}

TEST(SafetensorsWriter, CountsItsBytes) {
  const TempDir dir;
  {
    auto writer = SafetensorsWriter::create(dir / "a", {{"t", DType::kU8, {4}}});
    ASSERT_TRUE(writer);
    ASSERT_TRUE(writer->write(bytes_of("123")));
    EXPECT_THAT(writer->finish().error().message, HasSubstr("3 bytes written, 4 declared"));
    EXPECT_THAT(writer->write(bytes_of("45")).error().message, HasSubstr("more bytes written than the 4 declared"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path())) << "an unfinished file leaves nothing";
}

TEST(SafetensorsWriter, RefusesDeclarationsThatCannotBeRead) {
  const TempDir dir;
  const auto error = [&](std::vector<SafetensorsWriter::Declaration> tensors) {
    const auto writer = SafetensorsWriter::create(dir / "a", std::move(tensors));
    return writer ? "no error" : writer.error().message;
  };
  EXPECT_THAT(error({{"t", DType::kU8, {1}}, {"t", DType::kU8, {2}}}), HasSubstr("declared twice"));
  EXPECT_THAT(error({{"__metadata__", DType::kU8, {1}}}), HasSubstr("cannot be written"));
  EXPECT_THAT(error({{"t", DType::kU8, {-1}}}), HasSubstr("cannot be written"));
  EXPECT_THAT(error({{"t", DType::kF32, {int64_t{1} << 62}}}), HasSubstr("cannot be written"));
  EXPECT_THAT(error({{"a", DType::kU8, {int64_t{1} << 62}}, {"b", DType::kU8, {int64_t{1} << 62}}}),
              HasSubstr("cannot be written"));
  EXPECT_THAT(error({{"\xff", DType::kU8, {1}}}), HasSubstr("UTF-8"));
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  EXPECT_THAT(SafetensorsWriter::create(dir / "no/such/folder", {}).error().message, HasSubstr("cannot create"));
}

}  // namespace
}  // namespace fathom
