// Where the server is.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace fathom::load {

struct ServerUrl {
  bool tls = false;
  std::string host, port;  // an IPv6 address without its brackets
  std::string authority;   // as the Host header has it
  std::string root;        // the path before the API's, "" mostly: /tokenize is there
  std::string api;         // root + "/v1", or as the URL ends: "/v1", "/beta"
};

// http://HOST[:PORT][/PATH][/v1], or https.
Result<ServerUrl> parse_server_url(std::string_view url);

}  // namespace fathom::load
