#include "cli/interrupt.h"

namespace fathom {

namespace {
// A signal handler can reach nothing but a global.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);
}  // namespace

InterruptFlag::InterruptFlag(std::initializer_list<int> signals) {
  interrupted = false;
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = true; };
  for (const int signal : signals) {
    struct sigaction before {};
    // Without SA_RESTART: a read that waits for a line returns, so that Ctrl-C is noticed at the prompt too.
    sigaction(signal, &action, &before);
    before_.emplace_back(signal, before);
  }
}

InterruptFlag::~InterruptFlag() {
  for (const auto& [signal, before] : before_) sigaction(signal, &before, nullptr);
}

const std::atomic<bool>& InterruptFlag::flag() const { return interrupted; }

void InterruptFlag::clear() { interrupted = false; }

}  // namespace fathom
