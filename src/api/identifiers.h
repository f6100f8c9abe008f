// Names of answers, and of what made them.
#pragma once

#include <string>
#include <string_view>

#include "engine/engine.h"

namespace fathom {

// Stands for all that an answer depends on besides the request: "fp_" and a hash of cache_identity. Reads some MB.
std::string system_fingerprint(const Engine& engine);

// prefix, then 24 random letters and digits. Thread-safe.
std::string random_id(std::string_view prefix);

}  // namespace fathom
