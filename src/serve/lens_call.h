// POST /v1/lens: what sparse attention looks at, for any text.
#pragma once

#include <boost/asio/awaitable.hpp>

#include "api/api_call.h"
#include "engine/lens.h"
#include "serve/model_host.h"

namespace fathom {

struct LensCall {
  std::vector<int32_t> tokens;
  LensRequest request;
  std::vector<int64_t> layers;  // to be told of
};

// {"messages" or "prompt": as for chat and text completions, "queries": [positions], default: the last; "layers": [numbers],
// default: all; "map": {"rows", "cols"}}. Thread-safe.
ApiResult<LensCall> read_lens_call(const Json& body, const ApiContext& context);

// Has the text read like any prompt, so that its rows are in the cache, then looks. On the network's thread. Fails with 503 when
// the cache has no room, or the model is put away meanwhile.
boost::asio::awaitable<ApiResult<Json>> answer_lens(LoadedModel& model, LensCall&& call);

}  // namespace fathom
