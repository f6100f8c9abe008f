#include "base/quote.h"

#include <fmt/format.h>

namespace fathom {

namespace {
constexpr size_t kMostBytes = 120;  // the longest tensor name in a real checkpoint has 65

// Bytes of the UTF-8 character that `text` begins with; 0 when it begins with none.
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const size_t size = byte(0) < 0x80   ? 1
                      : byte(0) < 0xc2 ? 0
                      : byte(0) < 0xe0 ? 2
                      : byte(0) < 0xf0 ? 3
                      : byte(0) < 0xf5 ? 4
                                       : 0;
  for (size_t i = 1; i < size; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // C1 control characters are obeyed by terminals too.
  return size == 2 && byte(0) == 0xc2 && byte(1) < 0xa0 ? 0 : size;
}
}  // namespace

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    if (i >= kMostBytes) return out + fmt::format("…\" ({} bytes)", text.size());
    const char c = text[i];
    const size_t size = character_bytes(text.substr(i));
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (size == 0 || static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += text.substr(i, size);
    i += size == 0 ? 1 : size;
  }
  return out + "\"";
}

}  // namespace fathom
