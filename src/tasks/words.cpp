#include "tasks/words.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

namespace fathom {

namespace {

constexpr std::string_view kNouns[] = {
    "apple",    "anchor",  "arrow",  "bag",     "ball",    "banana",   "barrel",     "basket",  "bean",     "bear",
    "bed",      "bee",     "bell",   "bench",   "berry",   "bird",     "blanket",    "board",   "boat",     "bone",
    "book",     "boot",    "bottle", "bowl",    "box",     "branch",   "bread",      "brick",   "bridge",   "broom",
    "brush",    "bucket",  "bus",    "butter",  "button",  "cable",    "cake",       "camel",   "camera",   "candle",
    "carpet",   "carrot",  "castle", "cat",     "chain",   "chair",    "cheese",     "cherry",  "clock",    "cloud",
    "coat",     "coin",    "comb",   "copper",  "cotton",  "cow",      "crab",       "cream",   "crow",     "crown",
    "cup",      "curtain", "daisy",  "deer",    "desk",    "dish",     "dog",        "door",    "dragon",   "drawer",
    "dress",    "drum",    "duck",   "eagle",   "egg",     "engine",   "falcon",     "feather", "fence",    "field",
    "finger",   "fire",    "fish",   "flag",    "floor",   "flower",   "flute",      "forest",  "fork",     "fox",
    "frog",     "garden",  "garlic", "gate",    "ginger",  "glass",    "glove",      "goat",    "gold",     "goose",
    "grape",    "grass",   "guitar", "hammer",  "harbour", "hat",      "hawk",       "hill",    "honey",    "horse",
    "house",    "island",  "jacket", "jar",     "jewel",   "kettle",   "key",        "kitchen", "kite",     "knife",
    "ladder",   "lake",    "lamp",   "lantern", "leaf",    "lemon",    "letter",     "lion",    "lizard",   "lock",
    "map",      "marble",  "market", "meadow",  "melon",   "milk",     "mirror",     "monkey",  "moon",     "mouse",
    "mushroom", "nail",    "needle", "nest",    "net",     "nut",      "oak",        "ocean",   "olive",    "onion",
    "orange",   "otter",   "oven",   "owl",     "paint",   "panda",    "paper",      "parrot",  "peach",    "pear",
    "pebble",   "pencil",  "pepper", "piano",   "pillow",  "pine",     "plate",      "plum",    "pocket",   "pony",
    "potato",   "pumpkin", "puzzle", "rabbit",  "radio",   "rain",     "raven",      "ribbon",  "rice",     "ring",
    "river",    "road",    "robin",  "rocket",  "roof",    "rope",     "rose",       "sail",    "salt",     "sand",
    "scarf",    "school",  "shark",  "sheep",   "shell",   "ship",     "shirt",      "shoe",    "shovel",   "silver",
    "snail",    "snake",   "snow",   "soap",    "sock",    "soup",     "spider",     "spoon",   "squirrel", "stairs",
    "star",     "stone",   "stool",  "storm",   "stove",   "straw",    "strawberry", "street",  "sugar",    "summer",
    "swan",     "table",   "tea",    "tent",    "thread",  "ticket",   "tiger",      "tomato",  "tower",    "train",
    "tree",     "trumpet", "tulip",  "tunnel",  "turtle",  "umbrella", "valley",     "vase",    "village",  "violin",
    "wagon",    "wall",    "walnut", "water",   "whale",   "wheat",    "wheel",      "whistle", "window",   "winter",
    "wolf",     "wood",    "wool",   "yarn",    "zebra"};

constexpr std::string_view kFirstNames[] = {
    "Ada",    "Alan",   "Alma",  "Anna",  "Arthur", "Bella", "Boris", "Carla", "Cecil", "Clara", "Daniel",
    "Dora",   "Edith",  "Edgar", "Elena", "Emil",   "Erik",  "Eva",   "Felix", "Flora", "Frank", "Greta",
    "Hanna",  "Harold", "Helen", "Henry", "Hugo",   "Ida",   "Irene", "Ivan",  "Jacob", "Jane",  "Jonas",
    "Julia",  "Karl",   "Kira",  "Laura", "Leo",    "Lina",  "Louis", "Lucy",  "Marco", "Maria", "Martin",
    "Mira",   "Nadia",  "Nina",  "Nora",  "Olga",   "Oscar", "Otto",  "Paula", "Peter", "Rosa",  "Ruth",
    "Samuel", "Sara",   "Simon", "Sofia", "Stella", "Thea",  "Tom",   "Vera",  "Victor"};

constexpr std::string_view kAdjectives[] = {
    "red",   "blue",  "green", "white",  "black", "brown", "grey", "old",    "new",   "young", "small",  "large",
    "tall",  "short", "wide",  "narrow", "heavy", "light", "warm", "cold",   "quiet", "loud",  "clean",  "dusty",
    "round", "flat",  "soft",  "hard",   "wet",   "dry",   "dark", "bright", "empty", "full",  "broken", "wooden"};

constexpr std::string_view kBegins[] = {"b", "d", "f", "g", "h",  "k",  "l",  "m",  "n",  "p",  "r",  "s",
                                        "t", "v", "w", "z", "br", "dr", "gr", "kl", "pl", "st", "tr", "sh"};
constexpr std::string_view kMiddles[] = {"a", "e", "i", "o", "u", "a", "e", "o", "ai", "ea"};
constexpr std::string_view kEnds[] = {"", "l", "m", "n", "r", "s", "t", "k", "nd", "sk", "lm", "rt", "x", "v"};

// Chance makes these parts of words that nobody wants to read.
constexpr std::string_view kAvoided[] = {"shi", "nig", "neg", "fag", "fuk",  "tit",  "pis", "kun",
                                         "dik", "rap", "naz", "hit", "peni", "boob", "kak"};

}  // namespace

std::span<const std::string_view> common_nouns() { return kNouns; }
std::span<const std::string_view> first_names() { return kFirstNames; }
std::span<const std::string_view> adjectives() { return kAdjectives; }

std::string made_up_word(TaskRandom& random, int64_t syllables) {
  const auto in = [](const std::string& word) {
    return [&word](std::string_view part) { return word.find(part) != std::string::npos; };
  };
  while (true) {
    std::string word;
    for (int64_t i = 0; i < syllables; ++i) {
      word += random.pick(kBegins);
      word += random.pick(kMiddles);
    }
    word += random.pick(kEnds);
    if (std::ranges::none_of(kAvoided, in(word))) return word;
  }
}

std::string capitalized(std::string word) {
  if (!word.empty() && word[0] >= 'a' && word[0] <= 'z') word[0] = static_cast<char>(word[0] - 'a' + 'A');
  return word;
}

std::string spelled(std::string_view word) {
  std::vector<std::string> letters;
  for (const char c : word) letters.push_back(fmt::format("{} {}", c, letters.size() + 1));
  return fmt::format("{}", fmt::join(letters, ", "));
}

std::string any_word(TaskRandom& random) {
  if (random.chance(50)) return std::string(random.pick(kNouns));
  while (true) {
    const int64_t syllables = random.between(1, 3);
    std::string word = made_up_word(random, syllables);
    if (word.size() >= 3 && word.size() <= 10) return word;
  }
}

}  // namespace fathom
