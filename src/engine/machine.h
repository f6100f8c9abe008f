// The machine under a measurement: what it is, the most it can do, and the memory that this process takes of it.
#pragma once

#include <cstdint>
#include <string>

#include "base/cpu_features.h"
#include "base/memory.h"
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

// The best of several passes each: a limit, not a mean. On a machine shared with others it moves: probe right before and after what
// is to be compared with it. Of the reading the median too: what a measurement that is a median of such minutes can be compared
// with.
// A probe keeps its memory for as long as it lives. Where a virtual machine hands free memory to its host (free page reporting of
// virtio-balloon), half a gigabyte given back makes all memory slow for half a second, two seconds later: what is measured then
// would be that.
class MachineProbe {
 public:
  // `threads` must live as long.
  MachineProbe(ThreadPool& threads, Isa isa);
  MachineLimits limits();  // now; takes some tenths of a second
  // Of this process's resident memory.
  uint64_t memory_bytes() const { return buffer_.size_bytes(); }

 private:
  void probe_stream(MachineLimits& limits);
  double peak_gflops();

  ThreadPool& threads_;
  Isa isa_;
  Buffer buffer_;
};

// The middle of two probes.
MachineLimits between(const MachineLimits& a, const MachineLimits& b);

// Most memory this process has had resident at once, mapped files included; `reset` starts anew from what it has now.
// Zero where the system does not say.
uint64_t peak_resident_bytes();
void reset_peak_resident_bytes();

}  // namespace fathom
