// POST /v1/lens: what sparse attention looks at, for any text.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <string>

#include "api/api_call.h"
#include "engine/lens.h"
#include "serve/model_host.h"

namespace fathom {

struct LensCall {
  std::vector<int32_t> tokens;
  LensRequest request;
  std::vector<int64_t> layers;  // to be told of
  std::string client{};         // of BatchRequest
};

// {"messages" or "prompt": as for chat and text completions, "queries": [positions], default: the last; "layers": [numbers],
// default: all; "map": {"rows", "cols"}}. Thread-safe.
ApiResult<LensCall> read_lens_call(const Json& body, const ApiContext& context);

// Has the text read like any prompt, so that its rows are in the cache, then looks. On the network's thread. Fails with 503 when
// the cache has no room, or the model is put away meanwhile. The answer, JSON of megabytes for a real model, is made by the
// workers.
boost::asio::awaitable<ApiResult<std::string>> answer_lens(LoadedModel& model, LensCall&& call,
                                                           boost::asio::thread_pool& workers);

}  // namespace fathom
