// The loop of BPE training: from counted pieces to merges.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/bpe_trainer.h"

namespace fathom {

// pieces: with how often each stands in the texts. At most `count` merges.
std::vector<TrainedBpe::Merge> learn_merges(const std::vector<std::pair<std::string_view, int64_t>>& pieces,
                                            size_t count, int64_t min_count);

}  // namespace fathom
