#pragma once

#include <stdexcept>
#include <utility>

#include "base/result.h"

namespace fathom {

// What a result holds; the test fails where it holds an error.
template <typename T>
T value(Result<T> result) {
  if (result) return *std::move(result);
  throw std::runtime_error(result.error().message);
}

}  // namespace fathom
