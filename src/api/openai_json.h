// What OpenAI's older APIs, chat completions and completions, word alike.
#pragma once

#include <string>
#include <string_view>

#include "api/api_call.h"

namespace fathom {

// "stop" or "length"; as the vendor has it, "insufficient_system_resource" for an answer that was cancelled.
std::string_view openai_finish_reason(FinishReason reason);
Json openai_usage(const Usage& usage);
// {"id", "object", "created", "model", "system_fingerprint"}
Json openai_head(const ApiContext& context, const std::string& id, std::string_view object);

inline constexpr std::string_view kStreamDone = "data: [DONE]\n\n";

}  // namespace fathom
