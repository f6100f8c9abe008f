#include "api/identifiers.h"

#include <random>

#include "engine/block_key.h"
#include "engine/identity.h"

namespace fathom {

std::string system_fingerprint(const Engine& engine) {
  const Result<std::string> identity = cache_identity(engine);
  // The weights can be read: they are mapped. A folder that is gone since has no name for them but where it was.
  return fmt::format("fp_{:016x}", root_key(identity ? *identity : engine.store().folder().string()).words[0]);
}

std::string random_id(std::string_view prefix) {
  constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  thread_local std::mt19937_64 random(std::random_device{}() ^ (uint64_t{std::random_device{}()} << 32));
  std::string id(prefix);
  for (int i = 0; i < 24; ++i) id += kLetters[random() % kLetters.size()];
  return id;
}

}  // namespace fathom
