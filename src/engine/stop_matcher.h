// Finds stop strings in streamed text, however it is cut.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// Text is released as soon as it cannot be part of a stop string any more. The stop string that is complete first ends
// the text just before it; of several that are complete with the same character, the longest, whatever their order.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);

  // The text that is safe to show. After a match nothing more comes.
  std::string push(std::string_view text);
  // What was held back, when the text ends without a match.
  std::string finish();
  bool matched() const { return !match_.empty(); }
  // The stop string that ended the text; empty: none did.
  const std::string& match() const { return match_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::string match_;
};

}  // namespace fathom
