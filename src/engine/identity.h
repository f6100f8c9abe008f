// What the rows of a cache block depend on besides tokens: program, machine, settings and weights.
#pragma once

#include <string>

#include "base/result.h"
#include "engine/engine.h"

namespace fathom {

// Two engines whose texts are equal write the same bits for the same tokens. Weights are known by the names and sizes of
// their files, their beginnings (which name every tensor), and 64 samples of 4 KB spread over each: changing weights so
// that none of that changes is not an accident. The program is known by its whole file: another build may round otherwise.
// Reads about 2 MB a file.
Result<std::string> cache_identity(const Engine& engine);

}  // namespace fathom
