// Text to tokens and back, as the model would read it.
#pragma once

#include "api/api_call.h"

namespace fathom {

// POST /tokenize: {"prompt"} or {"content"}, with "add_special_tokens" (true: the mark of the beginning comes first); or
// {"messages"}, with what chat completions take beside them. "return_token_strs": true asks for the tokens' texts too.
// -> {"tokens", "count", "max_model_len", "token_strs"}
ApiResult<Json> tokenize_json(const Json& body, const ApiContext& context);
// POST /detokenize: {"tokens"} -> {"prompt", "content"}, the same text. Bytes that are no UTF-8 become U+FFFD.
ApiResult<Json> detokenize_json(const Json& body, const ApiContext& context);

}  // namespace fathom
