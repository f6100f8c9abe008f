// Each operation of the CPU backend alone, at the dimensions of V3.2-Exp, on synthetic weights and caches.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu_features.h"
#include "base/result.h"
#include "engine/bench_report.h"
#include "engine/machine.h"

namespace fathom {

struct KernelBenchSettings {
  Isa isa = Isa::kPortable;
  int threads = 0;     // 0: one per available core
  std::string filter;  // regular expression that a name must contain; empty: all
  int repeat = 5;
};

struct KernelResult {
  std::string name;  // "index_select of 131072 keys, 64 rows"
  Spread seconds;    // a call
  double flops = 0;  // a call; 0: arithmetic is not what it is about
  double bytes = 0;  // of weights and caches that a call reads
};

struct KernelReport {
  std::string isa;
  int threads = 0;
  Machine machine;
  MachineLimits limits_before, limits_after;
  std::vector<KernelResult> kernels;
};

// Weights rotate through memory far larger than the caches, as a model's layers do. Takes some 4 GB for all of them.
// on_kernel is told each name before it runs.
Result<KernelReport> bench_kernels(const KernelBenchSettings& settings,
                                   const std::function<void(std::string_view name)>& on_kernel,
                                   const std::atomic<bool>& cancel);

std::string kernels_text(const KernelReport& report);
std::string kernels_json(const KernelReport& report);

}  // namespace fathom
