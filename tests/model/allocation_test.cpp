// A step that has been run before takes no memory from the system: all scratch is planned by then. Counted, not trusted.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "model/runner.h"
#include "ops/step.h"
#include "support/isa.h"
#include "support/kv_memory.h"
#include "support/tiny_model.h"

namespace {
std::atomic<int64_t> allocations{0};

void* count_allocation(size_t size, size_t alignment) {
  ++allocations;
  void* p = alignment > alignof(std::max_align_t)
                ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
                : std::malloc(size ? size : 1);
  if (!p) throw std::bad_alloc();
  return p;
}
}  // namespace

// GCC sees `free` where it inlines these, and takes it for a mistake.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
// Every form of new in this program ends in one of these.
void* operator new(size_t size) { return count_allocation(size, 1); }
void* operator new[](size_t size) { return count_allocation(size, 1); }
void* operator new(size_t size, std::align_val_t a) { return count_allocation(size, static_cast<size_t>(a)); }
void* operator new[](size_t size, std::align_val_t a) { return count_allocation(size, static_cast<size_t>(a)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace fathom {
namespace {

TEST(Allocation, TheCounterCounts) {
  const int64_t before = allocations;
  int* volatile p = new int(3);  // volatile: otherwise the two may cancel out
  delete p;
  EXPECT_EQ(allocations, before + 1);
}

TEST(Allocation, StepsOfAKnownSizeAllocateNothing) {
  const ModelConfig config = tiny_config();
  const TinyModel model(config);
  constexpr int64_t kTokens = 90;
  const auto tokens = random_tokens(config, kTokens);
  for (Isa isa : supported_kernel_isas()) {
    ThreadPool threads(2);
    KvMemory memory(kv_layout(config, LatentFormat::kBf16), config.total_layers(), kTokens);
    const auto runner = make_cpu_runner(model.store(), {.isa = isa}, threads);
    const int32_t last = 29, first = 0;
    const auto prefill = [&](int64_t start) {
      const Slice slice{start, 30, memory.blocks(), true};
      Step step;
      step.tokens = std::span(tokens).subspan(static_cast<size_t>(start), 30);
      step.slices = {&slice, 1};
      step.kv = &memory.cache;
      step.logit_rows = {&last, 1};
      runner->forward(step);
    };
    const auto decode = [&](int64_t position) {
      const Slice slice{position, 1, memory.blocks()};
      Step step;
      step.tokens = std::span(tokens).subspan(static_cast<size_t>(position), 1);
      step.slices = {&slice, 1};
      step.kv = &memory.cache;
      step.logit_rows = {&first, 1};
      runner->forward(step);
    };
    // Which thread takes which piece is chance: let each have had every kind.
    for (int round = 0; round < 20; ++round) {
      prefill(0);
      prefill(30);
      for (int64_t t = 60; t < kTokens; ++t) decode(t);
    }
    const int64_t before = allocations;
    const size_t scratch = runner->scratch_bytes();  // arenas are mapped, not newed
    prefill(30);
    for (int64_t t = 60; t < kTokens; ++t) decode(t);
    EXPECT_EQ(allocations - before, 0) << isa_name(isa);
    EXPECT_EQ(runner->scratch_bytes(), scratch) << isa_name(isa);
  }
}

}  // namespace
}  // namespace fathom
