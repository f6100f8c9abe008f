// The recipe that tests train: models/recipes/tiny.json, changed as a test wants it.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "base/file.h"
#include "train/recipe.h"

namespace fathom::train {

inline const std::string kRecipes = FATHOM_MODELS "/recipes";

inline nlohmann::json tiny_json() { return nlohmann::json::parse(read_file(kRecipes + "/tiny.json").value()); }

inline Result<Recipe> parse(const nlohmann::json& json) { return parse_recipe(json.dump(), kRecipes, "recipe"); }

inline Recipe tiny_recipe() { return parse(tiny_json()).value(); }

// As a file; the tokenizer's path then no longer depends on where that is.
inline std::filesystem::path write_recipe(nlohmann::json json, const std::filesystem::path& file) {
  json["tokenizer"] = FATHOM_MODELS "/sample/tokenizer.json";
  std::ofstream(file) << json.dump();
  return file;
}

}  // namespace fathom::train
