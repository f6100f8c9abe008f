// Tests that run once for every instruction set: INSTANTIATE_TEST_SUITE_P(AllIsas, MyTest, kernel_isas(), isa_test_name).
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/cpu_features.h"

namespace fathom {

// Those that have kernels. One that the processor lacks is still listed, so that its tests are seen to be skipped.
inline auto kernel_isas() { return testing::Values(Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx); }
inline std::string isa_test_name(const testing::TestParamInfo<Isa>& isa) { return std::string(isa_name(isa.param)); }

// For loops inside of one test.
inline std::vector<Isa> supported_kernel_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx})
    if (isa_supported(isa)) isas.push_back(isa);
  return isas;
}

}  // namespace fathom

#define FATHOM_SKIP_UNLESS_SUPPORTED(isa) \
  if (!::fathom::isa_supported(isa)) GTEST_SKIP() << "this processor has no " << ::fathom::isa_name(isa)
