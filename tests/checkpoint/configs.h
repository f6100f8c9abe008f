#pragma once

#include <filesystem>

namespace fathom {

inline const std::filesystem::path kConfigs = std::filesystem::path(FATHOM_TEST_DATA) / "config";

}  // namespace fathom
