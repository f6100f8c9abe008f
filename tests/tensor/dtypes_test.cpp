// The number formats, against what their definitions say and, where small enough, for every code.
#include "tensor/dtypes.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "support/random.h"

namespace fathom {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of a code by the definition of the format: sign · mantissa · 2^exponent in doubles.
double e4m3_value(int code) {
  const int exponent = (code >> 3) & 15, mantissa = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa / 8.0, -6) : std::ldexp(1.0 + mantissa / 8.0, exponent - 7);
  return (code & 0x80) ? -magnitude : magnitude;
}

TEST(E4m3, EveryCodeHasItsValue) {
  for (int code = 0; code < 256; ++code) {
    const float x = to_float(E4M3{static_cast<uint8_t>(code)});
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(x)) << code;
      continue;
    }
    EXPECT_EQ(static_cast<double>(x), e4m3_value(code)) << code;
    EXPECT_EQ(std::signbit(x), (code & 0x80) != 0) << code;
  }
}

TEST(E4m3, EveryCodeRoundTrips) {
  for (int code = 0; code < 256; ++code) {
    const E4M3 x{static_cast<uint8_t>(code)};
    EXPECT_EQ(to_e4m3(to_float(x)).bits, x.bits) << code;
  }
}

TEST(E4m3, RoundsToTheNearestAndTiesToEven) {
  for (int code = 0; code < 0x7e; ++code) {
    const float low = to_float(E4M3{static_cast<uint8_t>(code)});
    const float high = to_float(E4M3{static_cast<uint8_t>(code + 1)});
    const float middle = (low + high) / 2;  // exact: four mantissa bits
    const int even = code % 2 == 0 ? code : code + 1;
    for (int sign : {0, 0x80}) {
      const auto encode = [&](float x) { return to_e4m3(sign ? -x : x).bits; };
      EXPECT_EQ(encode(middle), even | sign) << code;
      EXPECT_EQ(encode(std::nextafter(middle, 0.0f)), code | sign) << code;
      EXPECT_EQ(encode(std::nextafter(middle, 1e9f)), (code + 1) | sign) << code;
    }
  }
}

TEST(E4m3, SaturatesAndKeepsNan) {
  for (float x : {448.0f, 449.0f, 463.9f, 464.0f, 480.0f, 1e9f, std::numeric_limits<float>::max(), kInfinity}) {
    EXPECT_EQ(to_e4m3(x).bits, 0x7e) << x;
    EXPECT_EQ(to_e4m3(-x).bits, 0xfe) << x;
  }
  EXPECT_EQ(to_e4m3(std::numeric_limits<float>::quiet_NaN()).bits & 0x7f, 0x7f);
  EXPECT_EQ(to_e4m3(0.0f).bits, 0x00);
  EXPECT_EQ(to_e4m3(-0.0f).bits, 0x80);
  EXPECT_EQ(to_e4m3(std::numeric_limits<float>::denorm_min()).bits, 0x00);
  EXPECT_EQ(to_e4m3(0x1p-10f).bits, 0x00);  // half of the smallest subnormal: the tie goes to zero
  EXPECT_EQ(to_e4m3(std::nextafter(0x1p-10f, 1.0f)).bits, 0x01);
}

TEST(Bf16, EveryCodeRoundTrips) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const BF16 x{static_cast<uint16_t>(code)};
    const float value = to_float(x);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(bf16_round(value))) << code;
    } else {
      ASSERT_EQ(to_bf16(value).bits, x.bits) << code;
    }
  }
}

TEST(Bf16, RoundsToTheNearestAndTiesToEven) {
  for (uint32_t code = 0; code < 0x7f80; ++code) {  // to infinity
    const uint32_t low = code << 16;
    const auto round = [](uint32_t bits) { return to_bf16(std::bit_cast<float>(bits)).bits; };
    ASSERT_EQ(round(low + 0x7fff), code);
    ASSERT_EQ(round(low + 0x8000), code + (code & 1));
    ASSERT_EQ(round(low + 0x8001), code + 1);
    ASSERT_EQ(round((low + 0x8001) | 0x80000000u), (code + 1) | 0x8000u);
  }
}

TEST(Bf16, KeepsNanEvenWhenOnlyLowBitsSaySo) {
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(0xffffffffu)))));
  EXPECT_EQ(bf16_round(kInfinity), kInfinity);
  EXPECT_EQ(bf16_round(-kInfinity), -kInfinity);
}

TEST(Ue8m0, PublishedScales) {
  std::ifstream in(FATHOM_TEST_DATA "/numbers/ue8m0.json");
  const auto cases = nlohmann::json::parse(in);
  ASSERT_EQ(cases.size(), 15u);
  for (const auto& c : cases) {
    const float amax = std::max(c["amax"].get<float>(), 1e-4f);
    EXPECT_EQ(ue8m0_ceil(amax / kE4m3Max), c["scale"].get<float>()) << c.dump();
    EXPECT_EQ(std::ldexp(1.0f, c["log2"].get<int>()), c["scale"].get<float>());
  }
}

TEST(Ue8m0, IsTheSmallestPowerOfTwoNotBelow) {
  for (int e = -120; e <= 120; ++e) {
    const float power = std::ldexp(1.0f, e);
    EXPECT_EQ(ue8m0_ceil(power), power);
    EXPECT_EQ(ue8m0_ceil(std::nextafter(power, kInfinity)), 2 * power);
    EXPECT_EQ(ue8m0_ceil(std::nextafter(power, 0.0f)), power);
  }
  TestRandom random(3);
  for (int i = 0; i < 10000; ++i) {
    const float x = static_cast<float>(std::exp(random.uniform(-60, 60))), y = ue8m0_ceil(x);
    int exponent = 0;
    EXPECT_EQ(std::frexp(y, &exponent), 0.5f);
    EXPECT_TRUE(x <= y && y / 2 < x) << x;
  }
}

TEST(DTypeNames, RoundTripAndHaveSizes) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(DType::kF8E5M2); ++i) {
    const DType dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
    EXPECT_GT(dtype_size_bytes(dtype), 0u);
    names.insert(dtype_name(dtype));
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(DType::kF8E5M2) + 1);
  EXPECT_EQ(dtype_from_name("f32"), std::nullopt);
  EXPECT_EQ(dtype_from_name(""), std::nullopt);
  EXPECT_EQ(dtype_size_bytes(DType::kF8E4M3), 1u);
  EXPECT_EQ(dtype_size_bytes(DType::kBF16), 2u);
}

}  // namespace
}  // namespace fathom
