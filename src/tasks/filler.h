// Sentences that say nothing that is asked for: what the facts of a look-up are hidden among.
#pragma once

#include <string>

#include "tasks/random.h"

namespace fathom {

// One sentence of some 6 to 20 words, with numbers, names and places of its own now and then.
std::string filler_sentence(TaskRandom& random);
// One of two to five words, to fill what is left.
std::string short_sentence(TaskRandom& random);

}  // namespace fathom
