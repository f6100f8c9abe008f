#pragma once

#include <chrono>
#include <cstdint>

namespace fathom {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Since 1970, UTC.
inline int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}
inline int64_t now_seconds() { return now_ms() / 1000; }

}  // namespace fathom
