#include "api/openai_json.h"

namespace fathom {

std::string_view openai_finish_reason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
    case FinishReason::kFailed:
      return "insufficient_system_resource";
  }
  return "";
}

Json openai_usage(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_cache_hit_tokens", usage.cached_tokens},
          {"prompt_cache_miss_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}}};
}

Json openai_head(const ApiContext& context, const std::string& id, std::string_view object) {
  return {{"id", id},
          {"object", object},
          {"created", context.created},
          {"model", context.model},
          {"system_fingerprint", context.fingerprint}};
}

}  // namespace fathom
