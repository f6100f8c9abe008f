#include "grammar/tool_grammar.h"

#include <algorithm>
#include <utility>

#include "base/quote.h"
#include "grammar/schema_compiler.h"
#include "text/chat_tokens.h"

namespace fathom {

using namespace chat_tokens;

namespace {

// How each of the marks that would end arguments begins: strings in them do without it.
constexpr std::u32string_view kV31NeverRaw = U"<｜", kDsmlNeverRaw = U"</｜";

}  // namespace

Result<const Node*> tool_call_nodes(NodePool& nodes, ChatFormat format, std::span<const Tool> tools,
                                    const ToolCallOptions& options) {
  const bool dsml = format == ChatFormat::kDsml;
  std::string problems;
  // Compilers keep references into their schemas; nothing is copied.
  static const Json kAnyObject = {{"type", "object"}};
  std::vector<const Node*> calls;
  for (const Tool& tool : tools) {
    if (options.name && tool.name != *options.name) continue;
    const bool strict = std::ranges::find(options.strict, tool.name) != options.strict.end();
    SchemaCompiler compiler(nodes, strict ? tool.parameters : kAnyObject, fmt::format("{}.parameters", tool.name),
                            dsml ? kDsmlNeverRaw : kV31NeverRaw);
    if (dsml) {
      const Node* parameters = compiler.dsml_parameters();
      calls.push_back(nodes.concat({nodes.mark(kInvoke), nodes.literal(fmt::format(" name=\"{}\">\n", tool.name)),
                                    parameters, nodes.literal("\n"), nodes.mark(kEndInvoke), nodes.literal("\n")}));
    } else {
      const Node* arguments = compiler.value(json_types::kObject);
      calls.push_back(nodes.concat({nodes.mark(kToolCallBegin), nodes.literal(tool.name), nodes.mark(kToolSep),
                                    arguments, nodes.mark(kToolCallEnd)}));
    }
    if (const Status status = compiler.finish(); !status) {
      problems += (problems.empty() ? "" : "\n") + status.error().message;
    }
  }
  if (!problems.empty()) return fail("{}", problems);
  if (calls.empty()) {
    return options.name ? fail("tool_choice: {} is none of the {} functions", in_quotes(*options.name), tools.size())
                        : fail("tools: there is none to call");
  }
  const Node* one = nodes.alternatives(std::move(calls));
  const Node* all = nodes.repeat(one, 1, options.parallel ? grammar_limits::kMaxToolCalls : 1);
  const std::string_view begin = dsml ? kFunctionCalls : kToolCallsBegin;
  const Node* rest = dsml ? nodes.concat({nodes.literal("\n"), all, nodes.mark(kEndFunctionCalls)})
                          : nodes.concat({all, nodes.mark(kToolCallsEnd)});
  if (!options.optional) return nodes.concat({nodes.literal(dsml ? "\n\n" : ""), nodes.mark(begin), rest});
  // Text in which the calls' mark does not occur, or text up to it, and calls. kDsml's line feeds before it are text.
  return nodes.alternatives(
      {nodes.bytes(text_without_dfa(begin)), nodes.concat({nodes.bytes(text_up_to_dfa(begin)), rest})});
}

}  // namespace fathom
