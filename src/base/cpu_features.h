// Which instruction set the kernels are chosen for, once, at start.
#pragma once

#include <string_view>

#include "base/result.h"

namespace fathom {

// In rising order of preference.
enum class Isa {
  kReference,  // the scalar references themselves, nothing rounded that the model does not round: an oracle, very slow
  kPortable,   // plain C++, any machine
  kAvx2,       // AVX2 + FMA
  kAvx512,     // AVX-512 F/BW/VL/DQ + VBMI + BF16, GFNI (Zen 4, Sapphire Rapids and later)
  kAmx,        // the same and AMX-BF16 tiles (Sapphire Rapids and later)
};

std::string_view isa_name(Isa isa);
// For kAmx this asks the system, once, for the right to use tiles; threads started later have it too.
bool isa_supported(Isa isa);

// The best supported one, or what the environment variable FATHOM_ISA names ("reference", "portable", "avx2", "avx512",
// "amx"); an unknown name or one that this processor lacks is an error.
Result<Isa> choose_isa();

}  // namespace fathom
