#include "text/pre_tokenizer.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>

#include "text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace fathom {

namespace {

constexpr size_t kMaxPatterns = 16;
constexpr size_t kMaxPatternBytes = size_t{1} << 16;
constexpr size_t kJitStackStart = size_t{32} << 10, kJitStackMax = size_t{1} << 20;
constexpr uint32_t kHeapLimitKib = 64 << 10;
// The patterns of DeepSeek's tokenizers since V3. Their work grows with the text, whatever the text: none repeats a
// repeat, and what \s*[\r\n]+ reads in vain of a run of spaces, \s+(?!\S) then takes.
constexpr std::string_view kLinearPatterns[] = {
    R"(\p{N}{1,3})",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
};

// Any other pattern is watched: PCRE2 calls back before each item of it, and the clock is read now and then. PCRE2's own
// limit would not do, its JIT does not count how often a single character is repeated.
constexpr uint64_t kStepsPerClock = 256;
constexpr std::chrono::nanoseconds kTimeBase = std::chrono::seconds(1);
constexpr std::chrono::nanoseconds kTimePerByte = std::chrono::microseconds(5);  // some 20 times what a sane one needs

// Of this thread: a busy machine must not make a text fail.
std::chrono::nanoseconds cpu_time() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Code = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>>;

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[160] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

std::span<const std::string_view> published_patterns() { return kLinearPatterns; }

struct PreTokenizer::Pattern {
  Code code;
  bool watched;
};

class PreTokenizer::Run {
 public:
  MatchContext context;
  MatchData data;
  JitStack stack;
  std::chrono::nanoseconds deadline;  // of cpu_time
  uint64_t steps = 0;

  bool too_late() { return ++steps % kStepsPerClock == 0 && cpu_time() > deadline; }
};

void PreTokenizer::RunDeleter::operator()(Run* run) const { delete run; }

PreTokenizer::PreTokenizer() = default;
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&& other) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&& other) noexcept = default;

Result<PreTokenizer> PreTokenizer::create(const std::vector<std::string>& patterns, std::string_view source) {
  if (patterns.size() > kMaxPatterns) {
    return fail("{}: pre_tokenizer has {} Split patterns, at most {} are supported", source, patterns.size(),
                kMaxPatterns);
  }
  CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) return fail("{}: out of memory", source);
  pcre2_set_max_pattern_length(context.get(), kMaxPatternBytes);
  PreTokenizer result;
  for (size_t i = 0; i < patterns.size(); ++i) {
    int error = 0;
    size_t offset = 0;
    const bool watched = std::ranges::find(kLinearPatterns, patterns[i]) == std::end(kLinearPatterns);
    // \C would match half a character.
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | (watched ? PCRE2_AUTO_CALLOUT : 0);
    Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(patterns[i].data()), patterns[i].size(), options, &error,
                            &offset, context.get()));
    if (!code) {
      return fail("{}: pre_tokenizer: Split pattern {} is not a regular expression that PCRE2 accepts: {} at byte {}",
                  source, i, pcre2_message(error), offset);
    }
    // Where there is no JIT, or none for this pattern, pcre2_match interprets.
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    result.patterns_.push_back({std::move(code), watched});
  }
  return result;
}

Result<PreTokenizer::RunPtr> PreTokenizer::begin(size_t bytes) const {
  RunPtr run(new Run);
  run->context.reset(pcre2_match_context_create(nullptr));
  run->data.reset(pcre2_match_data_create(1, nullptr));
  run->stack.reset(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr));
  if (!run->context || !run->data) return fail("out of memory for matching");
  // Without a stack of its own (null) the JIT uses 32 KiB of the machine's.
  pcre2_jit_stack_assign(run->context.get(), nullptr, run->stack.get());
  pcre2_set_heap_limit(run->context.get(), kHeapLimitKib);
  pcre2_set_match_limit(run->context.get(), UINT32_MAX);  // time is the limit
  pcre2_set_depth_limit(run->context.get(), UINT32_MAX);  // the heap is
  pcre2_set_callout(
      run->context.get(),
      [](pcre2_callout_block*, void* data) { return static_cast<Run*>(data)->too_late() ? PCRE2_ERROR_CALLOUT : 0; },
      run.get());
  run->deadline = cpu_time() + kTimeBase + kTimePerByte * static_cast<int64_t>(bytes);
  return run;
}

Status PreTokenizer::split_from(size_t level, std::string_view text, Run& run, const Sink& piece) const {
  if (level == patterns_.size()) {
    if (!text.empty()) piece(text);
    return {};
  }
  const auto emit = [&](size_t begin, size_t end) -> Status {
    if (begin == end) return {};
    return split_from(level + 1, text.substr(begin, end - begin), run, piece);
  };
  const pcre2_code* code = patterns_[level].code.get();
  const bool watched = patterns_[level].watched;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t done = 0;  // pieces before this byte have been passed on
  size_t from = 0;  // where the next match may begin
  while (from < text.size()) {
    const auto match = [&](uint32_t options) {
      return pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | options, run.data.get(),
                         run.context.get());
    };
    int found = match(0);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = match(PCRE2_NO_JIT);  // slower, on the heap
    if (found == PCRE2_ERROR_CALLOUT || (watched && run.too_late())) {
      return fail("the tokenizer's Split pattern {} takes too long on this text of {} bytes", level, text.size());
    }
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      return fail("the tokenizer's Split pattern {} fails on this text of {} bytes: {}", level, text.size(),
                  pcre2_message(found));
    }
    const size_t* bounds = pcre2_get_ovector_pointer(run.data.get());
    const size_t begin = bounds[0], end = bounds[1];
    if (begin < done || end < begin || end > text.size()) {
      return fail("the tokenizer's Split pattern {} matches outside the text that is left (\\K?)", level);
    }
    FATHOM_RETURN_IF_ERROR(emit(done, begin));
    FATHOM_RETURN_IF_ERROR(emit(begin, end));
    done = end;
    // An empty match cuts the text there; the search goes on one character further.
    from = begin < end || end == text.size() ? end : end + utf8_step(text.substr(end)).size;
    from = std::max(from, done);
  }
  return emit(done, text.size());
}

}  // namespace fathom
