// The model as it is trained: the equations of src/model/, in differentiable operations and without rounding.
// Differences from inference, none of which changes what is computed: packed sequences instead of a cache; the
// indexer's Hadamard transform is left out (orthogonal, applied to queries and keys alike, it changes no score), and so
// is its FP8 rounding.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "train/data.h"
#include "train/functions.h"
#include "train/parameters.h"

namespace fathom::train {

// A pack as tensors; shapes and meaning as in data.h.
struct PackTensors {
  explicit PackTensors(const Pack& pack);
  int64_t rows() const { return token.size(0); }

  Tensor token, next, after_next;  // (T) int64
  Tensor weight, mtp_weight;       // (T)
  Tensor ones;                     // (T): every row counts in the indexer's loss
  Segments segments;
};

struct ForwardOptions {
  bool sparse_attention = false;
  bool index_loss = false;  // computes KL and recall, of every layer
  bool mtp = false;
  bool lm = true;  // false: stop before the head
  // Of tests: the selection of each layer (T, k) in place of the indexer's own.
  const std::vector<Tensor>* selected = nullptr;
};

// Sums over the rows of a pack.
struct Forward {
  Tensor hidden;                 // (T, hidden) after the final norm
  Tensor mtp_hidden;             // (T, hidden) after shared_head.norm; undefined without MTP
  Tensor lm, mtp;                // scalars: Σ weight · cross-entropy
  Tensor kl;                     // scalar: Σ over rows and layers
  double recall = 0;             // Σ over rows and layers of the share of attention that the selection holds
  std::vector<Tensor> load;      // of each MoE layer: tokens of each expert (E) int64
  std::vector<Tensor> selected;  // of each layer when attention is sparse: (T, k) int32
};

class Model {
 public:
  // All must outlive the model. `config` is the stage's: rope scaling and top-k may be others than when the parameters
  // were made. Not thread-safe.
  Model(const ModelConfig& config, const Parameters& parameters, Functions& functions);

  Forward forward(const PackTensors& pack, const ForwardOptions& options);
  // (T, V) of hidden or mtp_hidden.
  Tensor logits(const Tensor& hidden);

  // The bias parameters in the order of Forward::load.
  std::vector<std::string> bias_names() const;

 private:
  struct Pass;  // one forward under way

  const Tensor& p(const std::string& name) const { return parameters_.at(name); }
  Tensor norm(const Tensor& x, const std::string& gain);
  Tensor rope(const Tensor& x, const Pass& pass, bool interleaved) const;
  Tensor attention(int64_t layer, const Tensor& x, Pass& pass);
  KeySet index(int64_t layer, const Tensor& x, const Tensor& c_q, Pass& pass, Tensor& iq, Tensor& ik, Tensor& iw);
  Tensor feed_forward(int64_t layer, const Tensor& x, Pass& pass);
  Tensor block(int64_t layer, Tensor x, Pass& pass);
  Tensor mlp(const std::string& prefix, const Tensor& x);

  ModelConfig c_;
  const Parameters& parameters_;
  Functions& f_;
  double softmax_scale_;
  Tensor cos_, sin_;  // (positions, rope/2), of as many positions as were needed so far
};

}  // namespace fathom::train
