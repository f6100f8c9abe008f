#include "ops/indexer.h"

#include <algorithm>
#include <cmath>

#include "ops/quantize.h"

namespace fathom::ref {

void hadamard(float* x, int64_t dim) {
  FATHOM_CHECK(dim > 0 && (dim & (dim - 1)) == 0, "dim {}", dim);
  for (int64_t half = 1; half < dim; half *= 2) {
    for (int64_t i = 0; i < dim; i += 2 * half) {
      for (int64_t j = i; j < i + half; ++j) {
        const float a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (int64_t i = 0; i < dim; ++i) x[i] *= scale;
}

void index_query(const float* q, const float* w, int64_t heads, int64_t dim, E4M3* codes, float* weights) {
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(heads) * static_cast<double>(dim)));
  thread_local std::vector<float> row;  // steps allocate nothing
  row.resize(static_cast<size_t>(dim));
  for (int64_t h = 0; h < heads; ++h) {
    std::copy_n(q + h * dim, dim, row.begin());
    hadamard(row.data(), dim);
    weights[h] = w[h] * scale * quantize_group(row.data(), dim, true, codes + h * dim);
  }
}

float index_key(const float* k, int64_t dim, E4M3* codes) {
  thread_local std::vector<float> row;
  row.assign(k, k + dim);
  hadamard(row.data(), dim);
  return quantize_group(row.data(), dim, true, codes);
}

void write_index_key(const KvRows& kv, int64_t s, const float* k) {
  *kv.index_scale(s) = index_key(k, kv.cache->layout.index_dim, kv.index_codes(s));
}

void index_scores(const E4M3* codes, const float* weights, int64_t heads, const KvRows& kv, int64_t count,
                  float* score) {
  const int64_t dim = kv.cache->layout.index_dim;
  for (int64_t s = 0; s < count; ++s) {
    const E4M3* key = kv.index_codes(s);
    double sum = 0;
    for (int64_t h = 0; h < heads; ++h) {
      double dot = 0;
      for (int64_t i = 0; i < dim; ++i) dot += static_cast<double>(to_float(codes[h * dim + i])) * to_float(key[i]);
      sum += weights[h] * std::max(dot, 0.0);
    }
    score[s] = static_cast<float>(sum * *kv.index_scale(s));
  }
}

std::vector<int32_t> top_k(std::span<const float> score, int64_t k) {
  std::vector<uint64_t> keys;
  for (size_t s = 0; s < score.size(); ++s) keys.push_back(candidate_key(score[s], static_cast<uint32_t>(s)));
  std::sort(keys.begin(), keys.end(), std::greater<>());
  keys.resize(std::min(keys.size(), static_cast<size_t>(k)));
  std::vector<int32_t> index;
  for (uint64_t key : keys) index.push_back(static_cast<int32_t>(candidate_index(key)));
  std::sort(index.begin(), index.end());
  return index;
}

}  // namespace fathom::ref
