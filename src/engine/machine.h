// The machine under a measurement: what it is, the most it can do, and the memory that this process takes of it.
#pragma once

#include <cstdint>
#include <string>

#include "base/cpu_features.h"
#include "base/thread_pool.h"

namespace fathom {

struct Machine {
  std::string cpu;  // "AMD EPYC 9654 96-Core Processor"; "unknown" where the system does not say
  int cores = 0;    // that this process may use
  uint64_t memory_bytes = 0;
};

Machine describe_machine();

struct MachineLimits {
  double stream_gb_per_s = 0;         // all threads reading memory far larger than the caches
  double peak_gflops = 0;             // all threads multiplying and adding in registers (cpu/peak.h)
  double stream_median_gb_per_s = 0;  // the same reading, in the middle of all passes
};

// Takes about a second and memory for the read, which is given back. The best of several passes each: a limit, not a
// mean. On a machine shared with others it moves: probe right before and after what is to be compared with it. Of the reading the
// median too: what a measurement that is a median of such minutes can be compared with.
MachineLimits probe_limits(ThreadPool& threads, Isa isa);

// The middle of two probes.
MachineLimits between(const MachineLimits& a, const MachineLimits& b);

// Most memory this process has had resident at once, mapped files included; `reset` starts anew from what it has now.
// Zero where the system does not say.
uint64_t peak_resident_bytes();
void reset_peak_resident_bytes();

}  // namespace fathom
