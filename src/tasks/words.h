// Words and names to fill questions with.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tasks/random.h"

namespace fathom {

// Lower case, 3 to 10 letters, no two alike.
std::span<const std::string_view> common_nouns();
std::span<const std::string_view> first_names();
std::span<const std::string_view> adjectives();

// A pronounceable word that means nothing: "tarvin", "melosk".
std::string made_up_word(TaskRandom& random, int64_t syllables);
// The first letter in upper case.
std::string capitalized(std::string word);

// Each letter with its place: "c 1, a 2, t 3".
std::string spelled(std::string_view word);

// A common noun or a made-up word, 3 to 10 letters.
std::string any_word(TaskRandom& random);

}  // namespace fathom
