// What answers cost.
#pragma once

#include "api/api_call.h"

namespace fathom {

// USD per million tokens. The defaults are what the vendor asks for V3.2-Exp.
struct Price {
  double input = 0.28;    // of a prompt, not found in the cache
  double cached = 0.028;  // of a prompt, found in the cache
  double output = 0.42;   // of answers, reasoning included
};

// USD.
double cost_usd(const Price& price, const Usage& usage);

}  // namespace fathom
