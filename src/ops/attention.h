// Multi-head latent attention in absorbed form (DeepSeek-V2 report §2.1.2; V3.2-Exp report, appendix A): the latent row is
// the key and the value of every head.
//   absorb          q^L[t,h,r]  = Σ_d q^C[t,h,d] · W^UK[h,d,r]
//   attend          p[t,h,s]    = softmax over s ∈ S[t] of  scale · (q^L[t,h,:] · c[s,:] + q^R[t,h,:] · k^R[s,:])
//                   o^L[t,h,r]  = Σ_s p[t,h,s] · c[s,r]
//   project_values  o[t,h,v]    = Σ_r o^L[t,h,r] · W^UV[h,v,r]
// W^UK[h] and W^UV[h] are rows [h·(Dn+Dv), +Dn) and the next Dv of kv_b_proj (H·(Dn+Dv), R).
// The same, un-absorbed: keys and values of every head are made from the latent rows,
//   k[s,h,:] = (W^UK[h] c[s,:] | k^R[s,:])    v[s,h,:] = W^UV[h] c[s,:]    o = softmax(scale · q·k) v
// A key then costs 2·R·(Dn+Dv) FLOP per head once, and a query-key pair 2·(Dn+Dr+Dv) instead of 2·(2R+Dr): for many queries
// over the same keys, as in a prompt, the lesser work. Backends may use it for rows of a prompt, with p = 0 outside S[t];
// which rows do depends on their positions alone.
// shapes    q^C (T,H,Dn) · q^R (T,H,Dr) · q^L, o^L (T,H,R) · o (T,H,Dv), all f32 · cache rows as in kv_cache.h
// numerics  absorb keeps q^C in f32 (scores are what rounding hurts most); attend rounds q^L, q^R and p to BF16,
//           project_values o^L; the un-absorbed form rounds q, k, v and p to BF16; sums and softmax are f32. The references take the rounding as an argument.
//           Row t depends on row t, its cache rows and S[t] alone; only rows of S[t] are read.
#pragma once

#include <span>

#include "ops/indexer.h"
#include "ops/kv_cache.h"
#include "ops/linear.h"
#include "tensor/matrix.h"
#include "tensor/tensor.h"

namespace fathom::ref {

void absorb(Tensor q_nope, const MatrixView& kv_b, int64_t v_head_dim, Tensor q_latent);
// One query: q_latent (H,R), q_rope (H,Dr) with their strides, over the listed rows -> out (H,R).
void attend(InputRounding rounding, Tensor q_latent, Tensor q_rope, int64_t t, const KvRows& kv,
            std::span<const int32_t> rows, float scale, Tensor out);
void project_values(InputRounding rounding, Tensor o_latent, const MatrixView& kv_b, int64_t nope_dim, Tensor out);

}  // namespace fathom::ref
