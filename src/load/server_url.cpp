#include "load/server_url.h"

#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <charconv>

#include "base/quote.h"

namespace fathom::load {

Result<ServerUrl> parse_server_url(std::string_view text) {
  const auto wrong = [&](std::string_view what) {
    return fail("--url {}: {}; expected http://HOST:PORT or https://HOST, and a path where the API has one",
                in_quotes(text), what);
  };
  const auto parsed = boost::urls::parse_uri(text);
  if (!parsed) return wrong("not a URL");
  const boost::urls::url_view url = *parsed;
  if (url.scheme() != "http" && url.scheme() != "https") return wrong("not http or https");
  if (!url.has_authority() || url.encoded_host().empty()) return wrong("no host");
  if (url.has_userinfo()) return wrong("user names are not sent; a key goes to --api-key");
  if (url.has_query() || url.has_fragment()) return wrong("a query or fragment");
  if (url.has_port()) {
    const std::string_view port = url.port();
    uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc() || end != port.data() + port.size() || number == 0) return wrong("no such port");
  }

  ServerUrl server;
  server.tls = url.scheme() == "https";
  server.host = url.host_address();
  server.port = url.has_port() ? std::string(url.port()) : server.tls ? "443" : "80";
  server.authority = std::string(url.encoded_host_and_port());
  std::string path(url.encoded_path());
  while (path.ends_with('/')) path.pop_back();
  const size_t slash = path.rfind('/');
  const std::string_view last = slash == std::string::npos ? "" : std::string_view(path).substr(slash + 1);
  const bool is_api =
      last == "beta" || (last.size() > 1 && last[0] == 'v' && last.find_first_not_of("0123456789", 1) == last.npos);
  server.root = is_api ? path.substr(0, slash) : path;
  server.api = is_api ? path : path + "/v1";
  return server;
}

}  // namespace fathom::load
