// Any text as a regular expression and as a JSON Schema: it is refused with a message, or what comes out of its grammar
// can always go on and, byte by byte, is what it accepts whole.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "grammar/grammar.h"
#include "grammar/state.h"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

// Writes some text of the grammar, its bytes chosen by `seed`.
void write_some(const fathom::Grammar& grammar, uint32_t seed) {
  fathom::Stepper stepper;
  fathom::StatePtr state = stepper.start(grammar.root());
  std::string text;
  for (int i = 0; i < 300; ++i) {
    require(state->accepts == grammar.accepts(text), "the same verdict for the text so far");
    if (state->cells.empty()) break;
    seed = seed * 1664525 + 1013904223;
    fathom::StatePtr next;
    uint8_t byte = 0;
    for (uint32_t b = 0; b < 256 && next == nullptr; ++b) {
      byte = static_cast<uint8_t>((seed >> 16) + b);
      next = stepper.step(*state, byte, false);
    }
    require(next != nullptr, "what is not over can go on");
    state = next;
    text += static_cast<char>(byte);
    if (i > 20) i += 15;  // accepts() is quadratic here
  }
}

}  // namespace

// byte 0: 'r' for a regular expression, otherwise a schema; byte 1: the seed.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  auto grammar = fathom::Grammar::any_json_object();
  if (data[0] == 'r') {
    grammar = fathom::Grammar::regex(text);
  } else {
    const auto schema = fathom::parse_json(text, "fuzz");
    if (!schema) return 0;
    grammar = fathom::Grammar::json_schema(*schema, {.only_objects = (data[0] & 1) != 0});
    const fathom::Tool tool{.name = "f", .description = "", .parameters = *schema, .definition = {}};
    for (const auto format : {fathom::ChatFormat::kV31, fathom::ChatFormat::kDsml}) {
      const auto call = fathom::Grammar::tool_calls(format, std::span(&tool, 1), {.strict = {"f"}});
      require(call || !call.error().message.empty(), "errors say what is wrong");
      if (call) write_some(**call, data[1]);
    }
  }
  if (!grammar) {
    require(!grammar.error().message.empty(), "errors say what is wrong");
    return 0;
  }
  write_some(**grammar, data[1]);
  return 0;
}
