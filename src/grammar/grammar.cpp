#include "grammar/grammar.h"

#include <algorithm>
#include <utility>

#include "grammar/masker.h"
#include "grammar/regex.h"
#include "grammar/schema_compiler.h"
#include "grammar/tool_grammar.h"

namespace fathom {

Result<std::shared_ptr<const Grammar>> Grammar::make(std::unique_ptr<NodePool> nodes, const Node* root) {
  FATHOM_RETURN_IF_ERROR(nodes->finish());
  if (root->min_depth > grammar_limits::kMaxDepth) {
    return fail("$: no document fulfils this, or none nested at most {} deep", grammar_limits::kMaxDepth);
  }
  return std::shared_ptr<const Grammar>(new Grammar(std::move(nodes), root));
}

Result<std::shared_ptr<const Grammar>> Grammar::any_json_object() {
  return json_schema({{"type", "object"}}, {.only_objects = true});
}

Result<std::shared_ptr<const Grammar>> Grammar::json_schema(const Json& schema, const SchemaOptions& options) {
  auto nodes = std::make_unique<NodePool>();
  SchemaCompiler compiler(*nodes, schema, "$", {});
  const Node* root = compiler.value(options.only_objects ? json_types::kObject : json_types::kAll);
  FATHOM_RETURN_IF_ERROR(compiler.finish());
  return make(std::move(nodes), root);
}

Result<std::shared_ptr<const Grammar>> Grammar::regex(std::string_view pattern) {
  auto nodes = std::make_unique<NodePool>();
  auto dfa = compile_regex(pattern, RegexMatch::kWhole);
  if (!dfa) return fail("regular expression: {}", dfa.error().message);
  auto program = TextProgram::make(*std::move(dfa), TextForm::kRaw, {});
  if (!program) return fail("regular expression: {}", program.error().message);
  const Node* root = nodes->text(*std::move(program));
  return make(std::move(nodes), root);
}

Result<std::shared_ptr<const Grammar>> Grammar::tool_calls(ChatFormat format, std::span<const Tool> tools,
                                                           const ToolCallOptions& options) {
  auto nodes = std::make_unique<NodePool>();
  FATHOM_TRY(const Node* root, tool_call_nodes(*nodes, format, tools, options));
  return make(std::move(nodes), root);
}

bool Grammar::accepts(std::string_view text) const {
  Stepper stepper;
  StatePtr state = stepper.start(root_);
  for (const char c : text) {
    state = stepper.step(*state, static_cast<uint8_t>(c), false);
    if (state == nullptr) return false;
  }
  return state->accepts;
}

std::shared_ptr<Masker> Grammar::masker(const std::shared_ptr<const TokenTable>& tokens) const {
  const std::scoped_lock lock(mutex_);
  const auto found = std::ranges::find_if(maskers_, [&](const auto& masker) { return masker->tokens() == tokens; });
  if (found != maskers_.end()) return *found;
  if (maskers_.size() >= kMaxVocabularies) maskers_.erase(maskers_.begin());
  return maskers_.emplace_back(std::make_shared<Masker>(tokens));
}

}  // namespace fathom
