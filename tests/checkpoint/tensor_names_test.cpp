#include "checkpoint/tensor_names.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>

#include "base/file.h"
#include "checkpoint/configs.h"
#include "support/checkpoint_builder.h"

namespace fathom {
namespace {

using nlohmann::json;
struct Listed {
  std::vector<int64_t> shape;
  std::string dtype;
};

// The published inventory, its patterns spelled out: "model.layers.{i}.mlp.experts.{0..255}…" for layers "3..61".
std::map<std::string, Listed> inventory() {
  std::map<std::string, Listed> tensors;
  for (const json& entry : json::parse(*read_file(kConfigs / "tensor_inventory.json"))) {
    const std::string name = entry["name"];
    int first = 0, last = 0;
    if (!entry["layers"].is_null()) std::sscanf(entry["layers"].get<std::string>().c_str(), "%d..%d", &first, &last);
    for (int layer = first; layer <= last; ++layer) {
      const std::string in_layer = std::regex_replace(name, std::regex("\\{i\\}"), std::to_string(layer));
      const bool experts = in_layer.find("{0..255}") != std::string::npos;
      for (int e = 0; e < (experts ? 256 : 1); ++e)
        tensors[std::regex_replace(in_layer, std::regex("\\{0\\.\\.255\\}"), std::to_string(e))] = {
            entry["shape"].get<std::vector<int64_t>>(), entry["dtype"]};
    }
  }
  return tensors;
}

TEST(TensorNames, AreThoseOfThePublishedCheckpoint) {
  const auto config = load_config(kConfigs / "config.json");
  ASSERT_TRUE(config) << config.error().message;
  auto published = inventory();
  ASSERT_EQ(published.size(), 92425u);

  size_t count = 0;
  double main = 0, mtp = 0;
  for (const ExpectedTensor& tensor : expected_tensors(*config)) {
    ++count;
    const auto place = published.find(tensor.name);
    ASSERT_NE(place, published.end()) << tensor.name;
    ASSERT_EQ(place->second.shape, tensor.shape) << tensor.name;
    const std::string& dtype = place->second.dtype;
    ASSERT_EQ(dtype == "F8_E4M3", tensor.quantized) << tensor.name;
    ASSERT_EQ(dtype.starts_with("F32"), tensor.f32) << tensor.name;
    published.erase(place);
    double parameters = 1;
    for (const int64_t dim : tensor.shape) parameters *= static_cast<double>(dim);
    if (!tensor.shared_copy) (tensor.part == ModelPart::kMtp ? mtp : main) += parameters;
    if (!tensor.quantized) continue;
    ++count;
    const auto scale = published.find(scale_name(tensor.name));
    ASSERT_NE(scale, published.end()) << scale_name(tensor.name);
    ASSERT_EQ(scale->second.shape, scale_shape(tensor.shape)) << tensor.name;
    published.erase(scale);
  }
  EXPECT_EQ(count, 92425u);
  EXPECT_TRUE(published.empty()) << published.begin()->first;
  EXPECT_NEAR(main / 1e9, 671.9, 0.05);
  EXPECT_NEAR(mtp / 1e9, 11.6, 0.05);
}

TEST(TensorNames, FollowTheConfig) {
  const auto names = [](const ModelConfig& config) {
    std::set<std::string> set;
    for (const auto& tensor : expected_tensors(config)) EXPECT_TRUE(set.insert(tensor.name).second) << tensor.name;
    return set;
  };
  ModelConfig config = tiny_config();
  const auto all = names(config);
  EXPECT_TRUE(all.contains("model.layers.0.mlp.gate_proj.weight"));
  EXPECT_FALSE(all.contains("model.layers.0.mlp.gate.weight"));
  EXPECT_TRUE(all.contains("model.layers.1.mlp.gate.e_score_correction_bias"));
  EXPECT_TRUE(all.contains("model.layers.2.shared_head.norm.weight"));
  EXPECT_TRUE(all.contains("model.layers.2.self_attn.indexer.wk.weight")) << "the MTP layer has its own indexer";

  config.n_shared_experts = 0;
  EXPECT_FALSE(names(config).contains("model.layers.1.mlp.shared_experts.up_proj.weight"));
  config.num_nextn_predict_layers = 0;
  EXPECT_FALSE(names(config).contains("model.layers.2.eh_proj.weight"));
  config.index_topk = config.index_n_heads = config.index_head_dim = 0;
  for (const std::string& name : names(config)) EXPECT_EQ(name.find("indexer"), std::string::npos) << name;
  config.n_routed_experts = 0;
  EXPECT_TRUE(names(config).contains("model.layers.1.mlp.gate_proj.weight")) << "without experts all MLPs are dense";
}

TEST(TensorNames, ScalesCoverBlocksOf128) {
  EXPECT_EQ(scale_name("a.weight"), "a.weight_scale_inv");
  EXPECT_EQ(scale_shape({576, 7168}), (std::vector<int64_t>{5, 56}));
  EXPECT_EQ(scale_shape({128, 1}), (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(scale_shape({129, 127}), (std::vector<int64_t>{2, 1}));
}

}  // namespace
}  // namespace fathom
