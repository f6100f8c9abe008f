// POST /anthropic/v1/messages: how its answer is worded.
#pragma once

#include <memory>

#include "api/api_call.h"
#include "api/request_parts.h"

namespace fathom {

std::unique_ptr<ApiReply> make_messages_reply(const ApiContext& context, const ChatSettings& settings,
                                              const BatchRequest& request);

}  // namespace fathom
