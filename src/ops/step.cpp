#include "ops/step.h"

namespace fathom {

std::string_view operation_name(Operation operation) {
  switch (operation) {
    case Operation::kEmbed: return "embed";
    case Operation::kNorm: return "norm";
    case Operation::kRope: return "rope";
    case Operation::kLinear: return "linear";
    case Operation::kAppend: return "append";
    case Operation::kIndexQuery: return "index_query";
    case Operation::kIndexSelect: return "index_select";
    case Operation::kAbsorb: return "absorb";
    case Operation::kAttend: return "attend";
    case Operation::kProjectValues: return "project_values";
    case Operation::kRoute: return "route";
    case Operation::kMlp: return "mlp";
    case Operation::kExperts: return "experts";
    case Operation::kOther: return "other";
  }
  return "";
}

}  // namespace fathom
