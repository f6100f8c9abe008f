// Grammars of structured output: JSON, JSON Schema, regular expressions, tool calls. docs/structured-output.md says what is
// accepted, and how it works.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/limits.h"
#include "grammar/node.h"
#include "text/chat.h"

namespace fathom {

class Masker;
class TokenTable;

struct SchemaOptions {
  bool only_objects = false;  // the document is an object, whatever else the schema allows
};

struct ToolCallOptions {
  // Text of any kind may come first, and then there need be no call; otherwise there is at least one and nothing else.
  bool optional = false;
  bool parallel = true;               // several calls, or exactly one
  std::optional<std::string> name{};  // only this function
  // Names of functions whose arguments have to fit their schema; those of others are any JSON object.
  std::vector<std::string> strict{};
};

// Immutable, shared between answers; all member functions may be called from any thread. Whoever makes one from a
// client's request: errors name every problem by its path, one a line; time and memory are bounded (grammar_limits).
class Grammar {
 public:
  // response_format json_object. An object whose members may come twice, as in JSON itself.
  static Result<std::shared_ptr<const Grammar>> any_json_object();
  static Result<std::shared_ptr<const Grammar>> json_schema(const Json& schema, const SchemaOptions& options = {});
  // Of the whole text.
  static Result<std::shared_ptr<const Grammar>> regex(std::string_view pattern);
  // As the chat formats have them, and ChatParser reads them; without the end of the answer.
  static Result<std::shared_ptr<const Grammar>> tool_calls(ChatFormat format, std::span<const Tool> tools,
                                                           const ToolCallOptions& options = {});

  // Whether `text` is a whole instance.
  bool accepts(std::string_view text) const;

  const Node* root() const { return root_; }
  // For GrammarMatcher: the masks found so far. Those of the last kMaxVocabularies vocabularies are kept.
  std::shared_ptr<Masker> masker(const std::shared_ptr<const TokenTable>& tokens) const;

  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;

 private:
  static constexpr size_t kMaxVocabularies = 4;
  Grammar(std::unique_ptr<NodePool> nodes, const Node* root) : nodes_(std::move(nodes)), root_(root) {}
  static Result<std::shared_ptr<const Grammar>> make(std::unique_ptr<NodePool> nodes, const Node* root);

  std::unique_ptr<NodePool> nodes_;
  const Node* root_;
  mutable std::mutex mutex_;
  mutable std::vector<std::shared_ptr<Masker>> maskers_;
};

}  // namespace fathom
