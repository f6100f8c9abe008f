// POST /v1/chat/completions: how its answer is worded.
#pragma once

#include <memory>

#include "api/api_call.h"
#include "api/request_parts.h"

namespace fathom {

// include_usage: while streaming, in a chunk of its own at the end; the other chunks have a null there.
std::unique_ptr<ApiReply> make_chat_reply(const ApiContext& context, const ChatSettings& settings,
                                          const BatchRequest& request, bool include_usage);

}  // namespace fathom
