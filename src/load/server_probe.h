// What is asked of a server before the load: its model, and how it counts tokens.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <string>

#include "load/http_client.h"
#include "load/server_url.h"
#include "load/text_source.h"

namespace fathom::load {

// The first of GET /v1/models.
boost::asio::awaitable<Result<std::string>> first_model(HttpClient& client, const ServerUrl& server);

struct CountedWords {
  TextSource source;
  std::string how;  // "exact, by the server's /tokenize", or why they are estimated
};
// Has POST /tokenize count each common word, where the server has it. Fails where nobody answers.
boost::asio::awaitable<Result<CountedWords>> count_words(
    HttpClient& client, const ServerUrl& server, const std::string& model,
    const std::function<void(int64_t done, int64_t total)>& on_word);

}  // namespace fathom::load
