// Tool calls as the chat formats write them.
#pragma once

#include <span>

#include "grammar/grammar.h"

namespace fathom {

Result<const Node*> tool_call_nodes(NodePool& nodes, ChatFormat format, std::span<const Tool> tools,
                                    const ToolCallOptions& options);

}  // namespace fathom
