// A text of a given length with facts at given places, the rest filler.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tasks/random.h"
#include "text/tokenizer.h"

namespace fathom {

struct DocumentPlan {
  int64_t length = 0;  // of before + text + after: tokens, or bytes without a tokenizer
  double depth = 0;    // where the first needle stands; others follow it anywhere
  std::vector<std::string> needles{};
  std::vector<std::string> distractors{};  // anywhere
  std::string before{}, after{};
  std::vector<std::string> names{};  // keys and values: the filler has none of them
  const Tokenizer* tokenizer = nullptr;
};

struct Document {
  std::string text;
  bool fits = false;  // within 5 % of the length; false: the facts alone are too long, or leave too little for filler
};

// Mostly within 2 % of the length.
Result<Document> write_document(TaskRandom& random, const DocumentPlan& plan);

}  // namespace fathom
