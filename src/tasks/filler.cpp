#include "tasks/filler.h"

#include <fmt/format.h>

#include <string_view>

#include "tasks/words.h"

namespace fathom {

namespace {

constexpr std::string_view kDoing[] = {"walked slowly",     "waited",
                                       "sat down",          "sang a song",
                                       "read a letter",     "looked around",
                                       "drank some tea",    "told a story",
                                       "fell asleep",       "met an old friend",
                                       "counted the birds", "lost a coin",
                                       "found a feather",   "repaired a fence",
                                       "lit a lantern",     "asked for the way",
                                       "bought some bread", "watched the rain",
                                       "painted the gate",  "opened a window",
                                       "wrote a note",      "carried a basket",
                                       "caught a fish",     "planted a tree"};
constexpr std::string_view kWhere[] = {"by the river",         "at the market",      "in the garden",
                                       "near the old bridge",  "behind the school",  "in the kitchen",
                                       "at the harbour",       "on the hill",        "beside the road",
                                       "under the oak",        "in the small tower", "at the station",
                                       "in a quiet street",    "near the lake",      "at the edge of the forest",
                                       "in front of the mill", "on the last bench",  "inside the library"};
constexpr std::string_view kWhen[] = {"in the morning",    "at noon",       "in the evening",     "before sunrise",
                                      "after the storm",   "last summer",   "during the winter",  "on a Monday",
                                      "every other day",   "late at night", "for the first time", "as so often",
                                      "without any hurry", "long ago",      "when the bell rang", "on the way home"};
constexpr std::string_view kWas[] = {"stood", "lay", "was seen", "was kept", "was sold", "was hidden", "was repaired"};
constexpr std::string_view kRemarks[] = {"Nobody knew why", "It was a long day",       "The road was empty",
                                         "It rained again", "The news travelled fast", "That was not unusual",
                                         "Time went by",    "There was much to do",    "Most people agreed",
                                         "The wind turned", "Nothing else happened",   "It took a while"};
constexpr std::string_view kShort[] = {
    "It rained.",    "Nobody spoke.",        "Time went by.",   "The wind turned.",   "It was late.",
    "Birds sang.",   "The bell rang twice.", "It was quiet.",   "Snow fell.",         "The day was long.",
    "A dog barked.", "All was well.",        "Dust lay there.", "The door was open.", "Yes.",
    "Later."};

std::string noun(TaskRandom& random) {
  const bool described = random.chance(60);
  const std::string_view adjective = random.pick(adjectives()), name = random.pick(common_nouns());
  return described ? fmt::format("{} {}", adjective, name) : std::string(name);
}

std::string person(TaskRandom& random) {
  const std::string first(random.pick(first_names()));
  return random.chance(25) ? fmt::format("{} {}", first, capitalized(made_up_word(random, 2))) : first;
}

std::string place(TaskRandom& random) {
  return random.chance(20) ? "in " + capitalized(made_up_word(random, 2)) : std::string(random.pick(kWhere));
}

}  // namespace

std::string filler_sentence(TaskRandom& random) {
  const std::string who = person(random), other = person(random), where = place(random);
  const std::string thing = noun(random), second = noun(random);
  const std::string_view doing = random.pick(kDoing), doing_too = random.pick(kDoing), when = random.pick(kWhen);
  const std::string_view was = random.pick(kWas), remark = random.pick(kRemarks);
  const int64_t many = random.between(2, 900);
  switch (random.below(12)) {
    case 0:
      return fmt::format("{} {} {} {}.", who, doing, where, when);
    case 1:
      return capitalized(fmt::format("{} {} {} while {} {}.", when, who, doing, other, doing_too));
    case 2:
      return fmt::format("The {} {} {} {}.", thing, was, where, when);
    case 3:
      return fmt::format("{} brought the {} and the {} {}.", who, thing, second, where);
    case 4:
      return fmt::format("There were {} people {} {}.", many, where, when);
    case 5:
      return fmt::format("{} and {} talked about the {}.", who, other, thing);
    case 6:
      return fmt::format("{}, but {} {}.", remark, who, doing);
    case 7:
      return fmt::format("The {} of {} {} {}.", thing, who, was, where);
    case 8:
      return fmt::format("{} paid {} coins for a {}.", who, many, thing);
    case 9:
      return capitalized(fmt::format("{}, {} {}.", when, other, doing));
    case 10:
      return fmt::format("A {} {} {}, and a {} beside it.", thing, was, where, second);
    default:
      return fmt::format("{}.", remark);
  }
}

std::string short_sentence(TaskRandom& random) { return std::string(random.pick(kShort)); }

}  // namespace fathom
