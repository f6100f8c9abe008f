#include "train/optimizer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

namespace fathom::train {

namespace {
// Numbers a thread takes at once: long enough to pay for the hand-over, short enough to share.
constexpr int64_t kGrain = 1 << 16;

// The order of summation must not depend on the number of threads: sums of fixed pieces, added in order.
double square_sum(const torch::Tensor& gradient) {
  const float* g = gradient.data_ptr<float>();
  const int64_t count = gradient.numel(), pieces = (count + kGrain - 1) / kGrain;
  std::vector<double> sums(static_cast<size_t>(pieces));
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      double sum = 0;
      for (int64_t i = piece * kGrain; i < std::min(count, (piece + 1) * kGrain); ++i)
        sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
      sums[static_cast<size_t>(piece)] = sum;
    }
  });
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

bool has_gradient(const Parameter& p) { return p.trained && p.value.grad().defined(); }

}  // namespace

AdamW::AdamW(Parameters& parameters, const AdamWSettings& settings) : parameters_(parameters), settings_(settings) {
  for (const Parameter& p : parameters.all())
    moments_.push_back(p.trained ? Moments{torch::zeros_like(p.value.detach()), torch::zeros_like(p.value.detach())}
                                 : Moments{});
}

double AdamW::gradient_norm() const {
  double sum = 0;
  for (const Parameter& p : parameters_.all())
    if (has_gradient(p)) sum += square_sum(p.value.grad().contiguous());
  return std::sqrt(sum);
}

void AdamW::step(double learning_rate, double norm) {
  ++steps_;
  const double clip = norm > settings_.clip_norm ? settings_.clip_norm / norm : 1.0;
  const auto b1 = static_cast<float>(settings_.beta1), b2 = static_cast<float>(settings_.beta2);
  const auto n = static_cast<double>(steps_);
  const auto scale_m = static_cast<float>(learning_rate / (1 - std::pow(settings_.beta1, n)));
  const auto scale_v = static_cast<float>(1 / (1 - std::pow(settings_.beta2, n)));
  const auto eps = static_cast<float>(settings_.eps), scale_g = static_cast<float>(clip);
  for (size_t i = 0; i < moments_.size(); ++i) {
    Parameter& p = parameters_.all()[i];
    if (!has_gradient(p)) continue;
    const torch::Tensor gradient = p.value.grad().contiguous();
    const float decay = p.decays ? static_cast<float>(1 - learning_rate * settings_.weight_decay) : 1.0f;
    const float* g = gradient.data_ptr<float>();
    float *x = p.value.data_ptr<float>(), *m = moments_[i].m.data_ptr<float>(), *v = moments_[i].v.data_ptr<float>();
    at::parallel_for(0, p.value.numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const float gk = g[k] * scale_g;
        m[k] = b1 * m[k] + (1 - b1) * gk;
        v[k] = b2 * v[k] + (1 - b2) * gk * gk;
        x[k] = x[k] * decay - scale_m * m[k] / (std::sqrt(v[k] * scale_v) + eps);
      }
    });
    p.value.mutable_grad() = torch::Tensor();
  }
}

}  // namespace fathom::train
