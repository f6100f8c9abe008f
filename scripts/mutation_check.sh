#!/bin/bash
# Plants one bug after the other in a copy of the tree and requires that a test fails. A bug that no test sees is a hole
# in the tests. Prints a table: mutant, the first test that failed. Exit status 1 when a mutant survived.
#
#   scripts/mutation_check.sh [REGEX]     only mutants whose name matches
#
# Needs what the build needs, and python3. Uses ccache if there is one. Jobs: $JOBS, 2 if unset.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
pattern=${1:-}
work=$(mktemp -d "${TMPDIR:-/tmp}/fathom-mutants-XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/tree build=$work/build
targets=(tensor_tests ops_tests cpu_tests model_tests engine_tests eval_tests serve_tests)

mkdir "$tree"
(cd "$root" && tar cf - CMakeLists.txt cmake src tests models deploy) | tar xf - -C "$tree"

launcher=()
if command -v ccache >/dev/null; then
  launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  export CCACHE_BASEDIR=$work CCACHE_NOHASHDIR=1
fi
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)

# -O1: compiling costs more than running here, and the kernels need some optimisation.
cmake -S "$tree" -B "$build" "${generator[@]}" "${launcher[@]}" -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 -DNDEBUG" \
  -DFATHOM_BENCH=OFF >"$work/configure.log" 2>&1 || { cat "$work/configure.log"; exit 1; }

compile() { cmake --build "$build" -j "${JOBS:-2}" --target "${targets[@]}" >"$work/build.log" 2>&1; }

# Runs the tests, cheap ones first, up to the first failure, and prints its name; nothing when all pass.
first_failure() {
  local program filter
  while read -r program filter; do
    if ! timeout 300 "$build/tests/$program" --gtest_filter="$filter" --gtest_fail_fast --gtest_brief=1 \
      >"$work/run.log" 2>&1; then
      grep -m1 -o '\[  FAILED  \] [^ ,]*' "$work/run.log" | cut -c14- && return 0
      # A fault (guard page, failed check) ends the program in the middle of a test: name the test that was running.
      timeout 300 "$build/tests/$program" --gtest_filter="$filter" --gtest_fail_fast 2>/dev/null |
        grep '\[ RUN      \]' | tail -1 | cut -c14- | sed 's/$/ (crash)/' || true
      return 0
    fi
  done <<'TESTS'
tensor_tests *
ops_tests *
cpu_tests *
model_tests *
engine_tests *Golden*:Sampler*:Kv*:StopMatcher*:Trace*:Block*:Batcher*:Scheduler*:*Policy*:*Budget*:FairQueue*-*TheSameBits*
eval_tests *
serve_tests *
engine_tests *TheSameBits*:Session*:*SampleModel*/avx512
TESTS
}

echo "Building the tests without a mutant ..."
compile || { tail -30 "$work/build.log"; exit 1; }
if failed=$(first_failure) && [ -n "$failed" ]; then
  echo "A test fails without any mutant: $failed"
  exit 1
fi

survivors=0 count=0
# mutant NAME FILE OLD NEW [OLD NEW ...]: each OLD must be there exactly once.
mutant() {
  local name=$1 file=$2
  shift 2
  [[ $name =~ $pattern ]] || return 0
  count=$((count + 1))
  cp "$tree/$file" "$work/original"
  if ! python3 - "$tree/$file" "$@" <<'PYTHON'; then
import sys
path, pairs = sys.argv[1], sys.argv[2:]
text = open(path).read()
for old, new in zip(pairs[::2], pairs[1::2]):
    if text.count(old) != 1:
        sys.exit(f"{path}: found {text.count(old)} times, expected once: {old}")
    text = text.replace(old, new)
open(path, "w").write(text)
PYTHON
    printf '%-46s | %s\n' "$name" "DOES NOT APPLY: write it anew"
    survivors=$((survivors + 1))
    return 0
  fi
  local result
  if ! compile; then
    result="DOES NOT COMPILE: $(grep -m1 error: "$work/build.log" || true)"
    survivors=$((survivors + 1))
  else
    result=$(first_failure)
    if [ -z "$result" ]; then
      result="SURVIVED"
      survivors=$((survivors + 1))
    fi
  fi
  printf '%-46s | %s\n' "$name" "$result"
  cp "$work/original" "$tree/$file"
}

printf '%-46s | %s\n' "mutant" "first test that fails"
printf '%s\n' "-----------------------------------------------+-----------------------------------------------"

# Equations of the paper.
mutant "interleaved RoPE in the indexer" src/model/weights.cpp \
  'c_.indexer_rope_interleave ? RopePairs::kInterleaved : RopePairs::kHalfSplit' 'RopePairs::kInterleaved'
mutant "half-split RoPE in the main attention" src/model/mla.h \
  'b.rope(q_r, RopePairs::kInterleaved);' 'b.rope(q_r, RopePairs::kHalfSplit);' \
  'b.rope(k_r, RopePairs::kInterleaved);' 'b.rope(k_r, RopePairs::kHalfSplit);'
mutant "rope key not rotated" src/model/mla.h 'b.rope(k_r, RopePairs::kInterleaved);' ''
mutant "softmax scale without the YaRN factor" src/ops/rope.cpp 'return scale * m * m;' 'return scale;'
mutant "YaRN ramp one dimension late" src/ops/rope.cpp '(static_cast<double>(i) - low)' '(static_cast<double>(i) - low - 1)'
mutant "latent not normed" src/model/mla.h 'b.append_latent(layer, c_kv, k_r)' 'b.append_latent(layer, kv.slice(0, w.rank), k_r)'
mutant "MTP embedding and hidden swapped" src/model/transformer.h 'b.concat(e, h)' 'b.concat(h, e)'
mutant "MTP hidden state not normed" src/model/transformer.h 'b.rms_norm(hidden, w.mtp->hidden_norm)' 'hidden'
mutant "MTP with the last layer's head norm" src/model/transformer.h \
  'return b.rms_norm(x, w.mtp->head_norm);' 'return b.rms_norm(x, w.final_norm);'

# Indexer and selection.
mutant "reference: key scale dropped" src/ops/indexer.cpp 'sum * *kv.index_scale(s)' 'sum'
mutant "avx512: key scale dropped" src/cpu/indexer_avx512.cpp '_mm512_mul_ps(sum[j], scale)' 'sum[j]'
mutant "portable: key scale dropped" src/cpu/portable_loops.h 'sum * scales[s]' 'sum'
mutant "query scale dropped" src/ops/indexer.cpp \
  'w[h] * scale * quantize_group(row.data(), dim, true, codes + h * dim)' \
  'w[h] * scale + 0 * quantize_group(row.data(), dim, true, codes + h * dim)'
mutant "avx512: no relu in the scores" src/cpu/indexer_avx512.cpp '_mm512_max_ps(zero, acc[i][j])' \
  '_mm512_add_ps(zero, acc[i][j])'
mutant "Hadamard left out for keys" src/ops/indexer.cpp \
  'row.assign(k, k + dim);
  hadamard(row.data(), dim);' 'row.assign(k, k + dim);'
mutant "selection: causal mask off by one" src/cpu/backend_indexer.cpp \
  'position_[static_cast<size_t>(tile.first + i)] + 1 - s' 'position_[static_cast<size_t>(tile.first + i)] + 2 - s'
mutant "dense attention: one key too few" src/cpu/backend_attention.cpp 'std::min(size, count - part * size)' \
  'std::min(size, std::max<int64_t>(1, count - 1 - part * size))'
mutant "a tile of queries across sequences" src/cpu/backend_indexer.cpp \
  'slice_[static_cast<size_t>(last->first)] == slice_[row])' 'slice_[row] >= 0)'
mutant "top-k ties reversed" src/ops/indexer.h '(0xffffffffu - index)' '(index)' \
  'return 0xffffffffu - static_cast<uint32_t>(key);' 'return static_cast<uint32_t>(key);'
mutant "top-k stream drops the k-th when it prunes" src/cpu/top_k.h 'size_ = k_;' 'size_ = k_ - 1;'

# Router and experts.
mutant "bias added to the routing weight" src/ops/moe.cpp \
  'sum += weight[i] = score[static_cast<size_t>(expert[i])];' \
  'sum += weight[i] = score[static_cast<size_t>(expert[i])] + bias[static_cast<size_t>(expert[i])];'
mutant "group score from the best one only" src/ops/moe.cpp 's.groups > 1 ? best + second : 0.0f' \
  's.groups > 1 ? best : 0.0f'
mutant "routing weights not normalised" src/ops/moe.cpp 's.normalise ? s.scale / (sum + 1e-20f) : s.scale' 's.scale'
mutant "experts: weight of the wrong row" src/cpu/backend_moe.cpp 'g.row_weight ? g.row_weight[r] : 1.0f' \
  'g.row_weight ? g.row_weight[0] : 1.0f'

# Numbers and kernels.
mutant "e4m3 ties away from even" src/tensor/dtypes.cpp 'magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)' \
  'magnitude + 0x80000u'
mutant "portable: block scale of the first column" src/cpu/portable_loops.h 'w_scale ? w_scale[g] : 1.0f' \
  'w_scale ? w_scale[0] : 1.0f'
mutant "avx512: few rows, folded scale of the first column" src/cpu/gemm_few_avx512.cpp \
  'w_.scale[stripe_ * w_.scale_cols() + b]' 'w_.scale[stripe_ * w_.scale_cols()]'
mutant "avx512: few rows, scales of the first rows" src/cpu/gemm_few_avx512.cpp \
  'if (row / kFp8Group != stripe_) {' 'if (stripe_ < 0) {'
mutant "avx512: few rows, scale of the first column" src/cpu/gemm_few_avx512.cpp \
  'block_scale(a.w, row, packed_scales(a.x, i), block)' 'block_scale(a.w, row, packed_scales(a.x, i), 0)'
mutant "avx512: few rows, chains summed backwards" src/cpu/gemm_few_avx512.cpp \
  'for (int c = 0; c < kChains; ++c) y = _mm512_add_ps' 'for (int c = kChains - 1; c >= 0; --c) y = _mm512_add_ps'
mutant "avx512: panel, scales of the first segment" src/cpu/gemm_avx512.cpp \
  'block_scale(a.w, row, nullptr, k / kFp8Group + b)' 'block_scale(a.w, row, nullptr, b)'
mutant "avx512: panel, folded scales of the first segment" src/cpu/gemm_avx512.cpp \
  'a.w.scale[first / kFp8Group * a.w.scale_cols() + k / kFp8Group]' \
  'a.w.scale[first / kFp8Group * a.w.scale_cols() + (k - k_begin) / kFp8Group]'
mutant "avx512: segments do not add up" src/cpu/gemm_avx512.cpp \
  'a.first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(wanted(j), a.y[i] + 16 * j)' '_mm512_setzero_ps()'
mutant "avx512: reads a row past the panel" src/cpu/gemm_avx512.cpp 'word[i] = i < rows ?' 'word[i] = true ?'
mutant "avx512: few rows absorb the first latent block's scale" src/cpu/gemm_avx512.cpp \
  'expander(fp8 ? exponent_of(a.w.scale[n / kFp8Group * a.w.scale_cols() + r / kFp8Group]) : 0)' \
  'expander(fp8 ? exponent_of(a.w.scale[n / kFp8Group * a.w.scale_cols()]) : 0)'
mutant "queries of the indexer left out where they are needed" src/cpu/backend_base.cpp '*std::max_element(position_' \
  '*std::min_element(position_'
mutant "absorb: scale of the first latent block" src/cpu/gemm_avx512.cpp \
  'w.scale ? w.scale[n / kFp8Group * w.scale_cols() + r / kFp8Group]' 'w.scale ? w.scale[n / kFp8Group * w.scale_cols()]'
mutant "cache: FP8 row's first scale for all" src/ops/kv_cache.cpp 'row + l.rank + 4 * (i / kFp8Group)' 'row + l.rank'
mutant "avx512: FP8 row's first scale for all" src/cpu/attend_avx512.cpp 'row + rank + 4 * (r / kFp8Group)' 'row + rank'
mutant "portable: softmax total not rescaled" src/cpu/portable_loops.h 'total[h] *= shrink;' ''
mutant "w8a8 scales not rounded to powers of two" src/model/runner.cpp \
  'c.ue8m0_activations ? InputRounding::kFp8Pow2 : InputRounding::kFp8' 'InputRounding::kFp8'
mutant "w8a8 not in effect" src/model/runner.cpp 'settings.numerics == Numerics::kW8A8' 'false'
mutant "amx: key scale dropped" src/cpu/indexer_amx.cpp '_mm512_mul_ps(sum_lanes(sum), k_s)' 'sum_lanes(sum)'
mutant "amx: block scale of the first column" src/cpu/gemm_amx.cpp 'w.scale_cols() + (k0 + k) / kFp8Group]' 'w.scale_cols()]'
mutant "amx: earlier sums not rescaled" src/cpu/attend_amx.cpp '_CMP_NEQ_UQ) == 0) continue;' '_CMP_NEQ_UQ) != 1) continue;'
mutant "amx: a prompt's row sees one key too many" src/cpu/prompt_amx.cpp \
  'a.first_position + t + i + 1 - a.key_begin - k' 'a.first_position + t + i + 2 - a.key_begin - k'
mutant "un-absorbed form without the selection" src/cpu/backend_attention.cpp 'selected[i] = all ? nullptr : bits' \
  'selected[i] = rows > 0 ? nullptr : bits'
mutant "avx512: a prompt's earlier sums not rescaled" src/cpu/prompt_avx512.cpp '_mm512_set1_ps(shrink)' '_mm512_set1_ps(1.0f)'
mutant "parts of keys joined evenly" src/cpu/backend_attention.cpp 'std::exp(results.log_sum[part * group + g] - most) / sum' \
  '(1.0f / static_cast<float>(parts) + 0 * sum)'
mutant "a part's sum of powers from its best alone" src/cpu/attend_amx.cpp 'best[h] * a.scale + std::log(total[h])' \
  'best[h] * a.scale'

# Engine.
mutant "top-p takes one token too many" src/engine/sampler.cpp 'kept >= params_.top_p * total' \
  'kept > params_.top_p * total'
mutant "presence penalty for each time" src/engine/sampler.cpp \
  'params_.presence_penalty + params_.frequency_penalty * static_cast<double>(times)' \
  '(params_.presence_penalty + params_.frequency_penalty) * static_cast<double>(times)'
mutant "cache blocks lost on truncation" src/engine/kv_pool.cpp 'pool_->give_back(blocks_.back());' ''
mutant "prefix taken for longer than it is" src/engine/engine.cpp \
  'const int64_t cached = differ.first - tokens_.begin();' \
  'const int64_t cached = std::min<int64_t>(differ.first - tokens_.begin() + 1, std::min<int64_t>(tokens_in_cache(), prompt_size - 1));'
mutant "stop string held back at the end" src/engine/stop_matcher.cpp \
  'return std::exchange(held_, {}); }' 'held_.clear(); return {}; }'
mutant "block store: checksum without the content" src/engine/block_store.cpp 'checksum.add(slice);' ''
mutant "block store: checksum not compared" src/engine/block_store.cpp 'return header == expected;' 'return header.key == expected.key;'
mutant "block store: key neither hashed nor compared" src/engine/block_store.cpp \
  'Checksum checksum(expected);' 'expected.key = header.key; Checksum checksum(expected);'
mutant "block store: get is no use" src/engine/block_store.cpp 'blocks_.splice(blocks_.end(), blocks_, place->second);' ''
mutant "block store: use forgotten by a restart" src/engine/block_store.cpp 'lock.unlock();
    set_modified(file, stamp);' 'lock.unlock();'
mutant "block store: stamps follow the clock back" src/engine/block_store.cpp 'std::max(last_stamp_ + 1, ' 'std::max(int64_t{0}, '
mutant "block store: room made afterwards" src/engine/block_store.cpp 'while (stats_.bytes + disk_bytes >' 'while (stats_.bytes >'
mutant "block store: half a block stays on a full disk" src/engine/block_store.cpp 'remove_at(folder_, kTemporary);
    return' 'return'
mutant "block store: links are followed" src/engine/block_store.cpp 'O_RDONLY | O_NOFOLLOW | O_NONBLOCK' 'O_RDONLY | O_NONBLOCK'
mutant "pool: a block in use counts as idle" src/engine/kv_pool.cpp 'if (e.holders++ == 0) idle_.erase(e.idle);' \
  'e.holders++;'
mutant "pool: a fork writes into the shared last block" src/engine/kv_pool.cpp 'const int64_t whole = tokens / kBlockTokens;' \
  'const int64_t whole = (tokens + kBlockTokens - 1) / kBlockTokens;'
mutant "batcher: an answer's rows pass for a prompt's" src/engine/batcher.cpp \
  'std::clamp(s.prompt_size() - begin, int64_t{0}, kBlockTokens)' 'kBlockTokens'
mutant "batcher: any draft is taken" src/engine/batcher_step.cpp \
  'const bool accepted = s.answer.last_token() == *draft;' 'const bool accepted = true;'
mutant "batcher: rows of an answer are written again as a prompt's" src/engine/batcher_step.cpp \
  'const int64_t end = s->rows < s->prompt_size() ? s->prompt_size() : s->size();' 'const int64_t end = s->size();'
mutant "batcher: what drafts cost is asked for none of them" src/engine/batcher_step.cpp \
  's.acceptance.value() > policy_.break_even(answers_, may_draft_)' 's.acceptance.value() > 1'
mutant "drafts: their cost is a whole step's" src/engine/step_policy.cpp 'add(seconds - plain->second.value())' 'add(seconds)'
mutant "sampler: a draft takes a random number" src/engine/sampler.cpp 'random_ = before;' ''
mutant "answer: the end may come before the grammar's" src/engine/answer.cpp \
  'if (matcher_->complete() && !request_.ignore_eos)' 'if (!request_.ignore_eos)'
mutant "queue: a client that returns is paid for its pause" src/engine/fair_queue.h \
  'if (account.active++ == 0 && least)' 'if (account.active++ < 0 && least)'

# Evaluation.
mutant "eval: answers to a question taken for independent" src/eval/statistics.cpp \
  'squares += d * d;' 'squares += (o.value - out.estimate.value) * (o.value - out.estimate.value) + 0 * d;'
mutant "eval: normal for Student's quantile" src/eval/statistics.cpp \
  'boost::math::quantile(boost::math::students_t(clusters - 1), kUpper)' 'normal_quantile(kUpper)'
mutant "eval: agreeing answers are a point" src/eval/statistics.cpp \
  'all_agree(observations) ? wilson_interval(0, estimate.questions).high : half_width' 'half_width'
mutant "eval: one-sided sign test" src/eval/statistics.cpp 'std::min(1.0, 2 * boost' 'std::min(1.0, boost'
mutant "eval: asks what was trained on" src/eval/settings.cpp 'Split::kHeldOut, options_' 'Split::kTrain, options_'
mutant "batcher: decoded rows marked as a prompt's" src/engine/batcher_step.cpp 's.kv.blocks(), prompt}' 's.kv.blocks(), true}'
mutant "eval: malformed calls may be right" src/eval/answers.cpp 'answer.malformed_calls > 0) grade' \
  'answer.malformed_calls > 9) grade'
mutant "eval: answers of two modes paired" src/eval/answers.cpp 'thinking ? "thinking" : "direct"' \
  'thinking ? "direct" : "direct"'
mutant "lines: half a line kept" src/base/line_file.cpp 'static_cast<int64_t>(text.size() - rest.size())' \
  'static_cast<int64_t>(text.size())'
mutant "eval: settings not compared" src/eval/answer_log.cpp 'else if (*found != value)' 'else if (false && *found != value)'
mutant "eval: gains and losses exchanged" src/eval/compare.cpp \
  'static_cast<int64_t>(b->correct) - static_cast<int64_t>(a->correct)' \
  'static_cast<int64_t>(a->correct) - static_cast<int64_t>(b->correct)'

# Serving: keys, limits, ledger, metrics.
mutant "keys: kept as they are" src/serve/key_store.cpp 'std::span<const uint8_t>(digest), now' \
  'std::span(reinterpret_cast<const uint8_t*>(key.data()), digest.size()), now'
mutant "keys: valid a second too long" src/serve/key_store.cpp 'now >= *info.settings.expires' 'now > *info.settings.expires'
mutant "keys: revoked ones found" src/serve/key_store.cpp 'if (info.revoked) return tl' 'if (false && info.revoked) return tl'
mutant "keys: another process' changes not seen" src/serve/key_store.cpp 'return version == version_ ?' 'return version >= 0 ?'
mutant "limits: refused requests are counted" src/serve/limits.cpp 'return over <= 1e-6 ? 0 :' \
  'if (over > 1e-6) used_ += 1;
    return over <= 1e-6 ? 0 :'
mutant "limits: a debt is forgiven" src/serve/limits.cpp 'tokens.use(counted.emplace(expected_tokens))' \
  'tokens.use(std::min(*limits.tokens_per_minute, counted.emplace(expected_tokens)))'
mutant "limits: idle hours add up" src/serve/limits.cpp 'used_ = std::max(0.0, used_ - capacity' \
  'used_ = std::max(-1e9, used_ - capacity'
mutant "limits: a slot that was moved from ends twice" src/serve/limits.cpp '  --key_->running;' '  key_->running -= 2;'
mutant "ledger: dropped rows are free" src/serve/ledger.cpp '    unsaved_[row.key] += row.price_usd;
    if (bytes_ + bytes <= settings_.queue_bytes) {' '    if (bytes_ + bytes <= settings_.queue_bytes) {
      unsaved_[row.key] += row.price_usd;'
mutant "ledger: rows and sums in two transactions" src/serve/ledger.cpp '    FATHOM_TRY(Statement count,' \
  '    FATHOM_RETURN_IF_ERROR(database_.execute("COMMIT; BEGIN IMMEDIATE"));
    FATHOM_TRY(Statement count,'
mutant "ledger: what failed is not tried again" src/serve/ledger.cpp 'if (!stopping_) {' 'if (false && !stopping_) {'
mutant "ledger: text whether or not" src/serve/ledger.cpp 'settings_.text ? std::optional(text) : std::nullopt' \
  'std::optional(text)' '  if (!settings_.text) {' '  if (false && !settings_.text) {'
mutant "ledger: a file that was moved is written on" src/serve/ledger.cpp \
  '  FATHOM_RETURN_IF_ERROR(database_.check_in_place());' ''
mutant "sqlite: another version is read" src/serve/sqlite.cpp 'if (version != format.version)' 'if (version > 99)'
mutant "metrics: counters fall with a model" src/serve/metrics.cpp 'now >= last ? now - last : now)' 'now - last)'
mutant "metrics: time per token of all choices" src/serve/metrics.cpp \
  'static_cast<double>(std::max(row.choices, int64_t{1}))' '1.0'
mutant "usage: the last millisecond is the next day" src/serve/usage_report.cpp 'time_ms < ?2' 'time_ms <= ?2'
mutant "avx2: scale of the first column" src/cpu/gemm_avx2.cpp 'w.scale[row / kFp8Group * w.scale_cols() + k / kFp8Group]' \
  'w.scale[row / kFp8Group * w.scale_cols() + 0 * k]'
mutant "batches: keys see each other's files" src/serve/batch_store.cpp \
  '" FROM files WHERE id = ? AND key = ?"' '" FROM files WHERE id = ? AND (key = ? OR true)"'
mutant "batches: the input may go while it is read" src/serve/batch_store.cpp 'if (read) {' 'if (false && read) {'
mutant "batches: a start deletes what was answered" src/serve/batch_store.cpp \
  '"SELECT id FROM files UNION SELECT output_file FROM batches WHERE "' '"SELECT id FROM files UNION SELECT id FROM batches WHERE "'
mutant "batches: no limit to the files" src/serve/batch_store.cpp '*used + file.bytes > most_bytes_' '*used < 0 && most_bytes_ > 0'
mutant "forms: a part goes on to the end" src/serve/form_data.cpp 'body.substr(begin, end - begin)' 'body.substr(begin)'

echo "$((count - survivors)) of $count mutants were found"
[ "$survivors" -eq 0 ]
