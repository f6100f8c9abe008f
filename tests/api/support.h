// What the tests of this folder share: the sample model.
#pragma once

#include <memory>
#include <stdexcept>

#include "engine/engine.h"

namespace fathom {

inline std::unique_ptr<Engine> open_sample(EngineSettings settings = {}) {
  settings.threads = 1;
  if (settings.context == 0) settings.context = 1024;
  auto engine = Engine::open(FATHOM_MODELS "/sample", settings);
  if (!engine) throw std::runtime_error(engine.error().message);
  return *std::move(engine);
}

}  // namespace fathom
