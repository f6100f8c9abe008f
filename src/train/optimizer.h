// AdamW, and the global norm of gradients.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "train/parameters.h"
#include "train/recipe.h"

namespace fathom::train {

//   m ← β₁ m + (1 − β₁) g       v ← β₂ v + (1 − β₂) g²
//   θ ← θ − η (m / (1 − β₁ⁿ) / (√(v / (1 − β₂ⁿ)) + ε) + λ θ)            λ = 0 for vectors (norm gains, biases)
// (Loshchilov, Hutter 2019, "Decoupled weight decay regularization", algorithm 2). One pass over memory for each
// tensor.
// Parameters without a gradient are left alone. The result does not depend on the number of threads.
class AdamW {
 public:
  // Moments of 0, step 0.
  AdamW(Parameters& parameters, const AdamWSettings& settings);

  // ‖g‖ over all parameters that have one, in double; not finite when any element is not.
  double gradient_norm() const;
  // Gradients are multiplied by min(1, clip_norm / norm) as they are used, and dropped afterwards.
  void step(double learning_rate, double norm);

  struct Moments {
    torch::Tensor m, v;  // as the parameter; undefined for one that is not trained
  };
  std::vector<Moments>& moments() { return moments_; }  // in the order of the parameters
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  Parameters& parameters_;
  AdamWSettings settings_;
  std::vector<Moments> moments_;
  int64_t steps_ = 0;
};

}  // namespace fathom::train
