// The web app (web/), embedded in the program when it was built.
#pragma once

#include <span>
#include <string_view>

namespace fathom {

struct WebFile {
  std::string_view path;          // "/", "/assets/index-B1x9.js"
  std::string_view bytes;         // as it is
  std::string_view gzip, brotli;  // the same, compressed; empty where that is no smaller
  std::string_view content_type;
  std::string_view etag;  // of `bytes`, in its quotes. A compressed form that is sent needs one of its own (RFC 9110).
  std::string_view
      cache_control;  // what has a hash in its name never changes; everything else is to be asked for again
};

// The file that a request path names, without its query and already percent-decoded; null: there is none. Only what was built
// is found, the file system is not looked at. Lives as long as the program. Thread-safe.
const WebFile* find_web_file(std::string_view path);

// All of them, ordered by path.
std::span<const WebFile> web_files();

// False: the program was built without the app (FATHOM_WEB), and "/" is a page that says so.
bool has_web_app();

// Belongs to every answer with one of these files. The app needs nothing from elsewhere, no inline script or style, no eval.
inline constexpr std::string_view kWebContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "
    "'none'";

}  // namespace fathom
