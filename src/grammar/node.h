// The parts of a grammar: a graph, with cycles where it is recursive.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/byte_dfa.h"
#include "grammar/limits.h"
#include "grammar/text_program.h"

namespace fathom {

// What no document can fulfil has this depth.
inline constexpr uint32_t kImpossible = grammar_limits::kMaxDepth + 1;

struct Node {
  enum class Kind : uint8_t {
    kBytes,         // a word of `bytes`
    kText,          // a text of `text`, of at_least to at_most characters
    kConcat,        // its children, one after the other
    kAlternatives,  // one of its children
    kRepeat,        // children[0], which is never empty, at_least to at_most times
    kNest,          // children[0], one level deeper
    kMembers,       // some of its children in their order, all required ones among them, then any number of `other`;
                    // at_least to at_most in all. `first` comes before the first, `between` before the others
    kReference,     // children[0], set later
  };
  Kind kind;
  uint32_t id = 0;
  uint32_t min_depth = 0;  // levels that its shallowest text takes; kImpossible: there is none
  uint32_t at_least = 0, at_most = kUnlimited;
  std::vector<const Node*> children{};
  std::shared_ptr<const ByteDfa> bytes{};
  std::shared_ptr<const TextProgram> text{};
  // kMembers
  std::vector<bool> required{};
  uint32_t last_required = 0;  // index of the last required child + 1
  const Node* first = nullptr;
  const Node* between = nullptr;
  const Node* other = nullptr;  // may be null
};

// Makes nodes and owns them. Beyond the limits it goes on with the nodes it has; status() tells.
class NodePool {
 public:
  const Node* bytes(ByteDfa dfa);
  const Node* literal(std::string_view text);  // text of the document
  const Node* mark(std::string_view text);     // text of the format, which added tokens may spell
  const Node* text(std::shared_ptr<const TextProgram> program, uint32_t at_least = 0, uint32_t at_most = kUnlimited);
  const Node* concat(std::vector<const Node*> parts);
  const Node* alternatives(std::vector<const Node*> parts);  // of none: impossible
  const Node* optional(const Node* part) { return alternatives({nothing(), part}); }
  const Node* repeat(const Node* part, uint32_t at_least, uint32_t at_most);
  const Node* nest(const Node* part);
  const Node* members(Node node);  // of kind kMembers
  Node* reference();
  const Node* nothing();
  const Node* impossible() { return alternatives({}); }

  // Once everything is made: finds min_depth, and fails where a node leads to itself with no byte between. `names` is for
  // the message: what a reference is called.
  Status finish();
  const Status& status() const { return status_; }
  void name(const Node* reference, std::string path) { names_.emplace_back(reference, std::move(path)); }

 private:
  Node* add(Node node);
  void find_min_depth();
  Status check_references() const;

  std::deque<Node> nodes_;
  const Node* nothing_ = nullptr;
  size_t byte_states_ = 0;
  Status status_;
  std::vector<std::pair<const Node*, std::string>> names_;
};

// Whether the members from `index` on can make up at_least to at_most more, none nested deeper than `room`.
bool members_possible(const Node& members, size_t index, uint32_t at_least, uint32_t at_most, uint32_t room);

}  // namespace fathom
