// POST /v1/responses: how its answer is worded.
#pragma once

#include <memory>

#include "api/api_call.h"
#include "api/request_parts.h"

namespace fathom {

// asked: members of the request that the answer repeats.
std::unique_ptr<ApiReply> make_responses_reply(const ApiContext& context, const ChatSettings& settings,
                                               const BatchRequest& request, Json asked);

}  // namespace fathom
