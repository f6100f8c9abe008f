#include "serve/price.h"

namespace fathom {

double cost_usd(const Price& price, const Usage& usage) {
  const auto million = [](int64_t tokens) { return static_cast<double>(tokens) / 1e6; };
  return price.input * million(usage.prompt_tokens - usage.cached_tokens) +
         price.cached * million(usage.cached_tokens) + price.output * million(usage.completion_tokens);
}

}  // namespace fathom
