#include "engine/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "cpu/peak.h"

namespace fathom {

namespace {

// The text after "name" and a colon, of the first such line of a file in /proc.
std::string proc_value(const char* file, std::string_view name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || !line.starts_with(name)) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

// What `passes` runs of body() took, rising, after one that does not count.
template <typename Body>
std::vector<double> seconds_of(int passes, Body&& body) {
  std::vector<double> seconds;
  for (int i = 0; i <= passes; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    if (i > 0) seconds.push_back(seconds_since(start));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

size_t stream_bytes() {
  const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const size_t wanted =
      std::clamp<size_t>(4 * static_cast<size_t>(std::max(cache, 0L)), size_t{512} << 20, size_t{4} << 30);
  const long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  const size_t free_bytes = static_cast<size_t>(std::max(pages, 1L)) * static_cast<size_t>(page);
  return std::max(std::min(wanted, free_bytes / 4), size_t{16} << 20) / 64 * 64;
}

constexpr int64_t kPiece = 1 << 18;  // words of a task that reads: 2 MB

}  // namespace

Machine describe_machine() {
  Machine machine;
  machine.cpu = proc_value("/proc/cpuinfo", "model name");
  if (machine.cpu.empty()) machine.cpu = "unknown";
  cpu_set_t set;
  machine.cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                              : static_cast<int>(std::thread::hardware_concurrency());
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) machine.memory_bytes = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page);
  return machine;
}

MachineProbe::MachineProbe(ThreadPool& threads, Isa isa) : threads_(threads), isa_(isa), buffer_(stream_bytes()) {
  // Written, or every page would be the system's one page of zeros.
  uint64_t* words = buffer_.as<uint64_t>();
  threads_.parallel_for(static_cast<int64_t>(buffer_.size_bytes() / sizeof(uint64_t)), kPiece,
                        [&](int64_t begin, int64_t end, int) {
                          std::memset(words + begin, 1, static_cast<size_t>(end - begin) * sizeof(uint64_t));
                        });
}

MachineLimits MachineProbe::limits() {
  MachineLimits limits;
  probe_stream(limits);
  limits.peak_gflops = peak_gflops();
  return limits;
}

void MachineProbe::probe_stream(MachineLimits& limits) {
  // One sequential stream a core leaves a third of the bandwidth unused where the processor prefetches little: eight, fetched
  // 256 bytes ahead, as kernels that read many rows side by side.
  constexpr int64_t kStreams = 8, kLine = 8, kAhead = 32;
  constexpr int kPasses = 5;  // between repetitions, too: few, so that both are of one moment
  const uint64_t* words = buffer_.as<uint64_t>();
  const int64_t count = static_cast<int64_t>(buffer_.size_bytes() / sizeof(uint64_t));
  std::atomic<uint64_t> total{0};
  const std::vector<double> seconds = seconds_of(kPasses, [&] {
    threads_.parallel_for(count, kPiece, [&](int64_t begin, int64_t end, int) {
      uint64_t sum = 0;
      const int64_t length = (end - begin) / (kStreams * kLine) * kLine;
      for (int64_t i = 0; i < length; i += kLine)
        for (int64_t stream = 0; stream < kStreams; ++stream) {
          const uint64_t* line = words + begin + stream * length + i;
          __builtin_prefetch(line + kAhead);
          for (int64_t j = 0; j < kLine; ++j) sum += line[j];
        }
      total.fetch_add(sum, std::memory_order_relaxed);  // so that the sums are not left out
    });
  });
  limits.stream_gb_per_s = static_cast<double>(buffer_.size_bytes()) / seconds.front() * 1e-9;
  limits.stream_median_gb_per_s = static_cast<double>(buffer_.size_bytes()) / seconds[kPasses / 2] * 1e-9;
}

double MachineProbe::peak_gflops() {
  constexpr int64_t kRounds = 20'000;  // a fraction of a millisecond, so that the threads end together
  const int64_t pieces = 50 * threads_.threads();
  double flops = 0;
  const std::vector<double> seconds = seconds_of(6, [&] {
    std::atomic<int64_t> done{0};
    threads_.parallel_for(pieces, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        done.fetch_add(static_cast<int64_t>(cpu::peak_flops_loop(isa_, kRounds)), std::memory_order_relaxed);
    });
    flops = static_cast<double>(done.load());
  });
  return flops / seconds.front() * 1e-9;
}

MachineLimits between(const MachineLimits& a, const MachineLimits& b) {
  return {(a.stream_gb_per_s + b.stream_gb_per_s) / 2, (a.peak_gflops + b.peak_gflops) / 2,
          (a.stream_median_gb_per_s + b.stream_median_gb_per_s) / 2};
}

uint64_t peak_resident_bytes() {
  const std::string value = proc_value("/proc/self/status", "VmHWM");  // "12345 kB"
  return value.empty() ? 0 : 1024 * std::strtoull(value.c_str(), nullptr, 10);
}

void reset_peak_resident_bytes() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace fathom
