// The one tool of the tasks.
#pragma once

#include "text/chat.h"

namespace fathom {

Tool calculator_tool();

}  // namespace fathom
