#include "checkpoint/weight_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "base/file.h"
#include "checkpoint/tensor_names.h"
#include "checkpoint/tensor_table.h"
#include "support/checkpoint_builder.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string error_of(const std::filesystem::path& folder) {
  const auto store = WeightStore::open(folder);
  return store ? "no error" : store.error().message;
}
std::string error_of(const CheckpointBuilder& builder, size_t shards = 2) {
  const TempDir dir;
  builder.write(dir.path(), shards);
  return error_of(dir.path());
}

uint64_t vector_bytes(const ModelConfig& config) {
  uint64_t bytes = 0;
  for (const ExpectedTensor& tensor : expected_tensors(config))
    if (tensor.shape.size() == 1) bytes += static_cast<uint64_t>(tensor.shape[0]) * sizeof(float);
  return bytes;
}

// Every view must show what was written.
void expect_same(const WeightStore& store, const CheckpointBuilder& built) {
  for (const ExpectedTensor& expected : expected_tensors(store.config())) {
    if (expected.shared_copy) continue;
    const auto place = std::find_if(built.tensors.begin(), built.tensors.end(),
                                    [&](const auto& t) { return t.name == expected.name; });
    ASSERT_NE(place, built.tensors.end());
    if (expected.shape.size() == 1) {
      const auto values = store.vector(expected.name);
      ASSERT_EQ(values.size(), static_cast<size_t>(expected.shape[0])) << expected.name;
      for (size_t i = 0; i < values.size(); ++i) {
        float want = 0;
        if (place->dtype == DType::kF32) {
          std::memcpy(&want, place->bytes.data() + 4 * i, 4);
        } else {
          BF16 x;
          std::memcpy(&x, place->bytes.data() + 2 * i, 2);
          want = to_float(x);
        }
        ASSERT_EQ(values[i], want) << expected.name << " " << i;
      }
      continue;
    }
    const MatrixView view = store.matrix(expected.name.substr(0, expected.name.size() - 7));
    ASSERT_EQ(view.dtype, place->dtype) << expected.name;
    ASSERT_EQ(view.rows, expected.shape[0]) << expected.name;
    ASSERT_EQ(view.cols, expected.shape[1]) << expected.name;
    ASSERT_EQ(std::memcmp(view.data, place->bytes.data(), place->bytes.size()), 0) << expected.name;
    ASSERT_EQ(reinterpret_cast<uintptr_t>(view.data) % dtype_size_bytes(view.dtype), 0u) << expected.name;
    if (view.dtype != DType::kF8E4M3) {
      EXPECT_EQ(view.scale, nullptr);
      continue;
    }
    const auto scale = std::find_if(built.tensors.begin(), built.tensors.end(),
                                    [&](const auto& t) { return t.name == scale_name(expected.name); });
    ASSERT_NE(scale, built.tensors.end());
    ASSERT_EQ(reinterpret_cast<uintptr_t>(view.scale) % sizeof(float), 0u) << expected.name;
    ASSERT_EQ(std::memcmp(view.scale, scale->bytes.data(), scale->bytes.size()), 0) << expected.name;
  }
}

TEST(WeightStore, ShowsWhatWasWritten) {
  for (const size_t shards : {size_t{0}, size_t{1}, size_t{3}})
    for (const bool fp8 : {false, true}) {
      const TempDir dir;
      ModelConfig config = tiny_config();
      config.fp8 = fp8;
      config.ue8m0_activations = fp8;
      const CheckpointBuilder builder(config);
      builder.write(dir.path(), shards);
      const auto store = WeightStore::open(dir.path());
      ASSERT_TRUE(store) << store.error().message;
      expect_same(**store, builder);
      EXPECT_EQ((*store)->folder(), dir.path());
      uint64_t bytes = 0;
      for (const auto& file : std::filesystem::directory_iterator(dir.path()))
        if (file.path().extension() == ".safetensors") bytes += file.file_size();
      EXPECT_EQ((*store)->mapped_bytes(), bytes);
    }
}

TEST(WeightStore, CopiesOnlyVectorsWhenAligned) {
  const TempDir dir;
  CheckpointBuilder builder(tiny_config());
  std::stable_sort(builder.tensors.begin(), builder.tensors.end(),
                   [](const auto& a, const auto& b) { return dtype_size_bytes(a.dtype) > dtype_size_bytes(b.dtype); });
  builder.write(dir.path());
  const auto store = WeightStore::open(dir.path());
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_EQ((*store)->copied_bytes(), vector_bytes(builder.config));
}

TEST(WeightStore, CopiesWhatIsNotAligned) {
  const TempDir dir;
  CheckpointBuilder builder(tiny_config());
  // One stray byte in front shifts everything by one.
  BuiltTensor stray{"stray", DType::kU8, {1}, {std::byte{1}}};
  builder.tensors.insert(builder.tensors.begin(), stray);
  builder.write(dir.path(), 1);
  const auto store = WeightStore::open(dir.path());
  ASSERT_TRUE(store) << store.error().message;
  expect_same(**store, builder);
  uint64_t unaligned = 0;
  for (const BuiltTensor& tensor : builder.tensors)
    if (tensor.shape.size() == 2 && tensor.dtype != DType::kF8E4M3) unaligned += tensor.bytes.size();
  unaligned -= builder.at("model.layers.2.embed_tokens.weight").bytes.size() +
               builder.at("model.layers.2.shared_head.head.weight").bytes.size();
  EXPECT_GE((*store)->copied_bytes(), vector_bytes(builder.config) + unaligned);
}

TEST(WeightStore, AcceptsAnyOfTheThreeFormats) {
  CheckpointBuilder builder(tiny_config());
  BuiltTensor& wide = builder.at("model.layers.0.self_attn.q_a_proj.weight");
  wide.dtype = DType::kF32;
  wide.bytes.assign(wide.bytes.size() * 4, std::byte{0});
  builder.remove("model.layers.0.self_attn.q_a_proj.weight_scale_inv");
  BuiltTensor& half = builder.at("model.layers.0.self_attn.q_b_proj.weight");
  half.dtype = DType::kBF16;
  half.bytes.assign(half.bytes.size() * 2, std::byte{0});
  builder.remove("model.layers.0.self_attn.q_b_proj.weight_scale_inv");
  EXPECT_EQ(error_of(builder), "no error");
}

TEST(WeightStore, GateAndUpHaveOneFormat) {
  CheckpointBuilder builder(tiny_config());
  const std::string name = "model.layers.1.mlp.experts.2.up_proj.weight";
  BuiltTensor& up = builder.at(name);
  up.dtype = DType::kBF16;
  up.bytes.assign(up.bytes.size() * 2, std::byte{0});
  builder.remove(name + "_scale_inv");
  EXPECT_THAT(error_of(builder),
              HasSubstr(name + ": found BF16, expected F8_E4M3 as in model.layers.1.mlp.experts.2.gate_proj.weight"));
}

TEST(WeightStore, MtpCopiesMayBeAbsentButNotMisshapen) {
  CheckpointBuilder builder(tiny_config());
  builder.remove("model.layers.2.embed_tokens.weight");
  EXPECT_EQ(error_of(builder), "no error");
  builder.at("model.layers.2.shared_head.head.weight").shape = {72, 96};
  EXPECT_THAT(error_of(builder), HasSubstr("shared_head.head.weight: found shape [72, 96], expected [96, 72]"));
}

TEST(WeightStore, MtpLayerAndConfigMayDisagreeInOneDirection) {
  CheckpointBuilder builder(tiny_config());
  builder.config.num_nextn_predict_layers = 0;
  EXPECT_EQ(error_of(builder), "no error") << "an unused MTP layer is no problem";
  builder.config.num_nextn_predict_layers = 1;
  builder.remove_prefix("model.layers.2.");
  const std::string error = error_of(builder);
  EXPECT_THAT(error, HasSubstr("set num_nextn_predict_layers to 0"));
  EXPECT_THAT(error, Not(HasSubstr("problems"))) << "one problem, not one a tensor: " << error;
}

TEST(WeightStore, ReportsAllProblemsAtOnce) {
  CheckpointBuilder builder(tiny_config());
  builder.remove("model.norm.weight");
  builder.remove("model.layers.1.mlp.experts.3.up_proj.weight_scale_inv");
  builder.at("model.layers.0.self_attn.o_proj.weight").shape = {36, 144};
  builder.at("model.layers.0.self_attn.kv_a_proj_with_mqa.weight").dtype = DType::kI8;
  builder.at("lm_head.weight").dtype = DType::kF16;
  builder.at("model.layers.0.self_attn.kv_b_proj.weight_scale_inv").dtype = DType::kI32;
  builder.at("model.layers.1.input_layernorm.weight").dtype = DType::kI16;
  builder.add("model.layers.7.input_layernorm.weight", DType::kBF16, {72});
  const std::string error = error_of(builder);
  EXPECT_THAT(error, HasSubstr("model.norm.weight: missing"));
  EXPECT_THAT(error, HasSubstr("model.layers.1.mlp.experts.3.up_proj.weight_scale_inv: missing"));
  EXPECT_THAT(error, HasSubstr("o_proj.weight: found shape [36, 144], expected [72, 72]"));
  EXPECT_THAT(error, HasSubstr("kv_a_proj_with_mqa.weight: found I8, expected F8_E4M3, BF16 or F32"));
  EXPECT_THAT(error, HasSubstr("lm_head.weight: found F16"));
  EXPECT_THAT(error, HasSubstr("kv_b_proj.weight_scale_inv: found I32, expected F32"));
  EXPECT_THAT(error, HasSubstr("model.layers.1.input_layernorm.weight: found I16, expected BF16 or F32"));
  EXPECT_THAT(error, HasSubstr("\"model.layers.7.input_layernorm.weight\": surplus"));
}

TEST(WeightStore, ScaleOfWrongShapeIsAProblem) {
  CheckpointBuilder builder(tiny_config());
  // (136, 72) needs (2, 1)
  builder.at("model.layers.0.mlp.gate_proj.weight_scale_inv").shape = {1, 2};
  EXPECT_THAT(error_of(builder), HasSubstr("gate_proj.weight_scale_inv: found shape [1, 2], expected [2, 1]"));
}

TEST(WeightStore, BadValuesAreNamedWithTheirPlace) {
  for (const float bad :
       {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    CheckpointBuilder builder(tiny_config());
    std::memcpy(builder.at("model.layers.0.mlp.gate_proj.weight_scale_inv").bytes.data() + 4, &bad, 4);
    EXPECT_THAT(error_of(builder), HasSubstr("gate_proj.weight_scale_inv: the scale at [1, 0] is")) << bad;
  }
  CheckpointBuilder builder(tiny_config());
  const BF16 nan{0x7fc0};
  std::memcpy(builder.at("model.norm.weight").bytes.data() + 10, &nan, 2);
  EXPECT_THAT(error_of(builder), HasSubstr("model.norm.weight: the value at [5] is nan"));
}

TEST(WeightStore, LongListsAreCut) {
  CheckpointBuilder builder(tiny_config());
  builder.remove_prefix("model.layers.1.");
  const std::string error = error_of(builder);
  EXPECT_THAT(error, HasSubstr("  and "));
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 21);
}

TEST(WeightStore, ToleratesTensorsThatAreNobodysBusiness) {
  CheckpointBuilder builder(tiny_config());
  builder.add("optimizer.step", DType::kI64, {});
  builder.add("model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {4});
  EXPECT_EQ(error_of(builder), "no error");
  builder.add("model.extra.weight", DType::kF32, {4});
  EXPECT_THAT(error_of(builder), HasSubstr("\"model.extra.weight\": surplus"));
}

class BrokenFolder : public testing::Test {
 protected:
  BrokenFolder() { CheckpointBuilder(tiny_config()).write(dir_.path(), 2); }
  std::filesystem::path shard(size_t i) const { return dir_.path() / shard_file_name(i, 2); }
  void replace_index(const std::string& from, const std::string& to) {
    std::string text = *read_file(dir_ / kIndexFile);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, from.size(), to);
    ASSERT_TRUE(write_file_atomically(dir_ / kIndexFile, text));
  }
  TempDir dir_;
};

TEST_F(BrokenFolder, IsSoundBeforeItIsBroken) { EXPECT_EQ(error_of(dir_.path()), "no error"); }

TEST_F(BrokenFolder, MissingShardIsOneProblem) {
  std::filesystem::remove(shard(2));
  const std::string error = error_of(dir_.path());
  EXPECT_THAT(error, AllOf(HasSubstr("model-00002-of-00002.safetensors: cannot open"), HasSubstr("tensors)")));
  EXPECT_THAT(error, Not(HasSubstr("missing"))) << "its tensors are not listed one by one";
}

TEST_F(BrokenFolder, TruncatedShardIsNamed) {
  std::filesystem::resize_file(shard(1), std::filesystem::file_size(shard(1)) - 1);
  EXPECT_THAT(error_of(dir_.path()), AllOf(HasSubstr("model-00001-of-00002"), HasSubstr("cut short")));
  std::filesystem::resize_file(shard(1), 100);
  EXPECT_THAT(error_of(dir_.path()), HasSubstr("cut short"));
  std::filesystem::resize_file(shard(1), 0);
  EXPECT_THAT(error_of(dir_.path()), HasSubstr("found 0 bytes"));
}

TEST_F(BrokenFolder, TensorInAnotherShardThanTheIndexSays) {
  replace_index(R"("lm_head.weight":"model-00002-of-00002.safetensors")",
                R"("lm_head.weight":"model-00001-of-00002.safetensors")");
  EXPECT_THAT(error_of(dir_.path()), AllOf(HasSubstr("\"lm_head.weight\" should be in"), HasSubstr("but is not")));
}

TEST_F(BrokenFolder, ShardNamesStayInTheFolder) {
  for (const std::string name : {"../model.safetensors", "/etc/passwd", "..", ".", "", "a\\\\b", "a\\u0000b"}) {
    const std::string before = *read_file(dir_ / kIndexFile);
    replace_index(R"("lm_head.weight":"model-00002-of-00002.safetensors")", R"("lm_head.weight":")" + name + "\"");
    EXPECT_THAT(error_of(dir_.path()), HasSubstr("is not the name of a file in this folder")) << name;
    ASSERT_TRUE(write_file_atomically(dir_ / kIndexFile, before));
  }
}

TEST_F(BrokenFolder, BrokenIndexIsNamed) {
  for (const std::string text :
       {"", "{", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{"a":1}})", R"({"weight_map":{"a":{}}})",
        R"({"weight_map":{},"weight_map":{}})", R"({"metadata":[[[[[[[[[[[[[[[[[[[[)", R"({"weight_map":{}} x)"}) {
    ASSERT_TRUE(write_file_atomically(dir_ / kIndexFile, text));
    EXPECT_THAT(error_of(dir_.path()), HasSubstr("model.safetensors.index.json: ")) << text;
  }
  ASSERT_TRUE(write_file_atomically(dir_ / kIndexFile, R"({"metadata":{"a":[1,{"b":null}],"c":1.5},"x":true,)"
                                                       R"("weight_map":{"t":"f","t":"f"}})"));
  EXPECT_THAT(error_of(dir_.path()), HasSubstr("f: cannot open"));
}

TEST_F(BrokenFolder, TensorNamedTwiceInTheIndex) {
  replace_index(R"("lm_head.weight":)", R"("lm_head.weight":"model-00002-of-00002.safetensors","lm_head.weight":)");
  EXPECT_THAT(error_of(dir_.path()), HasSubstr("\"lm_head.weight\" is named twice"));
}

TEST_F(BrokenFolder, FolderWithoutWeightsOrConfig) {
  std::filesystem::remove(dir_ / kIndexFile);
  EXPECT_THAT(error_of(dir_.path()), HasSubstr("found neither model.safetensors.index.json nor model.safetensors"));
  std::filesystem::remove(dir_ / "config.json");
  EXPECT_THAT(error_of(dir_.path()), HasSubstr("config.json: cannot open"));
  EXPECT_THAT(error_of(dir_ / "nowhere"), HasSubstr("config.json: cannot open"));
}

using WeightStoreDeathTest = testing::Test;
TEST(WeightStoreDeathTest, UnknownNamesAreOurOwnMistake) {
  const TempDir dir;
  CheckpointBuilder(tiny_config()).write(dir.path());
  const auto store = WeightStore::open(dir.path());
  ASSERT_TRUE(store);
  EXPECT_DEATH((*store)->matrix("model.nothing"), "model.nothing");
  EXPECT_DEATH((*store)->vector("model.nothing.weight"), "model.nothing");
}

}  // namespace
}  // namespace fathom
