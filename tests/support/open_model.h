#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/engine.h"

namespace fathom {

// A model that comes with the repository; with one thread and 1,024 tokens, unless others are asked for.
inline std::unique_ptr<Engine> open_model(const std::string& name, EngineSettings settings = {}) {
  if (settings.threads == 0) settings.threads = 1;
  if (settings.context == 0) settings.context = 1024;
  auto engine = Engine::open(FATHOM_MODELS "/" + name, settings);
  if (!engine) throw std::runtime_error(engine.error().message);
  return *std::move(engine);
}
inline std::unique_ptr<Engine> open_sample(const EngineSettings& settings = {}) {
  return open_model("sample", settings);
}

}  // namespace fathom
