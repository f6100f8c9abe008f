// How products of few input rows walk through weights. Internal linkage, as in generic.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/matrix.h"

namespace fathom::cpu {
namespace {

// Weight rows read as kStretches stretches of memory side by side, each in order, a row of each at a time: their chains hide each
// other's latency, and a core gets most from memory by a few long streams, which it sees coming. They are asked for kAhead bytes
// ahead, and near their ends what comes next, taken to be cut likewise.
template <int64_t kAhead>
class StretchesAhead {
 public:
  static constexpr int64_t kStretches = 4;

  // Rows [row, row + kStretches · length) of w; `next` is what this thread reads after them, or null.
  StretchesAhead(const MatrixView& w, int64_t row, int64_t length, const std::byte* next)
      : bytes_(length * w.row_bytes()), to_next_(next ? next - w.row(row) - bytes_ : 0) {}
  // How far behind a line lies the one to ask for with it; `done`: bytes of each stretch before it. For whole segments at once: near an
  // end, some lines are asked for that nobody needs.
  int64_t ahead(int64_t done) const { return done + kAhead < bytes_ ? kAhead : kAhead + to_next_; }

 private:
  int64_t bytes_, to_next_;
};

}  // namespace
}  // namespace fathom::cpu
