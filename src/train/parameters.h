// The trainable tensors of a model, under the names of the checkpoint.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/config.h"

namespace fathom::train {

struct Parameter {
  std::string name;
  torch::Tensor value;   // contiguous float32
  bool trained = true;   // false: the router's bias, which is not learnt by gradient
  bool indexer = false;  // of a lightning indexer
  bool decays = false;   // a matrix
};

// In the order of the checkpoint, with two differences: the experts of a layer are one tensor, (E, out, in), named
// "…mlp.experts.gate_proj.weight" without the expert's number, because they are computed together; and the MTP layer
// has no copies of embedding and head. Move-only in spirit: tensors are shared by copies.
class Parameters {
 public:
  // Matrices are normal with deviation `std`; those that write to the residual stream (o_proj, down_proj) are smaller
  // by (2 · layers)^-½, so that its variance does not grow with depth (Radford et al. 2019). Norm gains are 1, biases
  // 0. A tensor's values follow from (seed, its name) alone.
  static Parameters initialise(const ModelConfig& config, uint64_t seed, double std);

  // The values of a checkpoint folder in the Hugging Face layout, dequantised. Parts that it lacks (a dense
  // checkpoint's indexer) stay as they are; fails, naming every difference, when sizes are others.
  Status load_checkpoint(const std::filesystem::path& folder, const ModelConfig& config);

  const torch::Tensor& at(std::string_view name) const;  // aborts when there is none of that name
  std::vector<Parameter>& all() { return all_; }
  const std::vector<Parameter>& all() const { return all_; }
  int64_t count() const;  // numbers in all of them

 private:
  std::vector<Parameter> all_;
  std::map<std::string, size_t, std::less<>> by_name_;
};

// "model.layers.3.mlp.experts.7.up_proj.weight" -> "model.layers.3.mlp.experts.up_proj.weight" and 7; −1 for other
// names.
struct StackedName {
  std::string name;
  int64_t expert = -1;
};
StackedName stacked_name(std::string_view checkpoint_name);

}  // namespace fathom::train
