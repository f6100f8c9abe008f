#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace fathom {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) { std::erase(stops_, ""); }

std::string StopMatcher::push(std::string_view text) {
  if (matched()) return {};
  // Byte by byte, so that the result cannot depend on how the text is cut.
  std::string out;
  for (char c : text) {
    held_ += c;
    for (const std::string& stop : stops_)
      if (held_.ends_with(stop) && stop.size() > match_.size()) match_ = stop;
    if (matched()) {
      held_.resize(held_.size() - match_.size());
      return out + std::exchange(held_, {});
    }
    // Keep the longest end of the text that begins a stop string.
    size_t keep = 0;
    for (const std::string& stop : stops_) {
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n)
        if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
    out.append(held_, 0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
  }
  return out;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace fathom
