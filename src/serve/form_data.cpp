#include "serve/form_data.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <optional>

#include "base/quote.h"

namespace fathom {

namespace http = boost::beast::http;

namespace {

// A form has a handful.
constexpr size_t kMaxParts = 64;
constexpr size_t kMaxPartHeader = 8192;

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }
bool same(std::string_view a, std::string_view b) { return boost::beast::iequals(a, b); }

// The parameters behind a value, "; boundary=x"; nothing where another value is there.
std::optional<http::param_list> parameters(std::string_view field, std::string_view value) {
  const std::string_view found = field.substr(0, field.find(';'));
  if (!same(found.substr(0, found.find_last_not_of(" \t") + 1), value)) return std::nullopt;
  return http::param_list(field.substr(found.size()));
}

// Without its quotes, "x" of "boundary" for one; empty where it is missing.
std::string list_member(const http::param_list& list, std::string_view name) {
  for (const auto& [key, value] : list)
    if (same(view(key), name)) return std::string(view(value));
  return {};
}

// A part's header is a message's without its first line; Beast reads it.
Result<FormPart> read_part(std::string_view part, size_t number) {
  const size_t end = part.find("\r\n\r\n");
  if (end == std::string_view::npos || end > kMaxPartHeader)
    return fail("the form's part {} has no header of at most {} bytes", number, kMaxPartHeader);
  http::request_parser<http::empty_body> parser;
  parser.header_limit(2 * kMaxPartHeader);
  const std::string head = fmt::format("POST / HTTP/1.1\r\n{}\r\n\r\n", part.substr(0, end));
  boost::beast::error_code error;
  parser.put(boost::asio::buffer(head), error);
  if (error || !parser.is_header_done())
    return fail("the header of the form's part {} is none: {}", number, error.message());
  const auto disposition = parameters(view(parser.get()[http::field::content_disposition]), "form-data");
  if (!disposition) return fail("the form's part {} has no 'Content-Disposition: form-data'", number);
  FormPart out{.name = list_member(*disposition, "name"),
               .filename = list_member(*disposition, "filename"),
               .content = part.substr(end + 4)};
  if (out.name.empty()) return fail("the form's part {} has no name", number);
  return out;
}

}  // namespace

Result<std::vector<FormPart>> read_form(std::string_view content_type, std::string_view body) {
  const auto type = parameters(content_type, "multipart/form-data");
  if (!type)
    return fail("content-type: found {}, expected multipart/form-data, as files are uploaded", in_quotes(content_type));
  const std::string boundary = list_member(*type, "boundary");
  // RFC 2046 allows 70; and an empty one would be found everywhere.
  if (boundary.empty() || boundary.size() > 70)
    return fail("content-type: the boundary has {} bytes, expected 1 to 70", boundary.size());

  // Each delimiter begins a line, and the first may be the first line of all.
  const std::string delimiter = "\r\n--" + boundary;
  std::vector<FormPart> parts;
  size_t at = body.starts_with(std::string_view(delimiter).substr(2)) ? 0 : body.find(delimiter);
  if (at == std::string_view::npos) return fail("the form does not begin with its boundary, {}", in_quotes(boundary));
  at += at == 0 ? delimiter.size() - 2 : delimiter.size();
  for (;;) {
    if (body.substr(at).starts_with("--")) return parts;
    const size_t line_end = body.find("\r\n", at);
    const size_t end = line_end == std::string_view::npos ? line_end : body.find(delimiter, line_end);
    if (end == std::string_view::npos) return fail("the form ends before its last boundary: was it cut off?");
    if (parts.size() == kMaxParts) return fail("the form has more than {} parts", kMaxParts);
    const size_t begin = line_end + 2;
    // A delimiter right behind the last is an empty part, without even a header.
    const std::string_view part = begin <= end ? body.substr(begin, end - begin) : std::string_view();
    FATHOM_TRY(FormPart read, read_part(part, parts.size() + 1));
    parts.push_back(std::move(read));
    at = end + delimiter.size();
  }
}

}  // namespace fathom
