#pragma once

#include <memory>
#include <stdexcept>
#include <utility>

#include "engine/engine.h"

namespace fathom {

// The sample model, with one thread unless more are asked for.
inline std::unique_ptr<Engine> open_sample(EngineSettings settings) {
  if (settings.threads == 0) settings.threads = 1;
  auto engine = Engine::open(FATHOM_MODELS "/sample", settings);
  if (!engine) throw std::runtime_error(engine.error().message);
  return *std::move(engine);
}

}  // namespace fathom
