// Compiled grammars, kept for the next request with the same schema: agents send one thousands of times, and a grammar keeps the
// masks that it has found.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/result.h"
#include "grammar/grammar.h"

namespace fathom {

// Bounded by the number of grammars and by the bytes of their texts; the least recently used goes first, and lives on as long as
// an answer holds it. Thread-safe: a grammar is compiled without the lock, so that two threads may compile the same at the
// same time; the first one's is kept.
class GrammarCache {
 public:
  using Compiled = Result<std::shared_ptr<const Grammar>>;

  explicit GrammarCache(size_t max_grammars = 64, size_t max_text_bytes = size_t{16} << 20)
      : max_grammars_(max_grammars), max_text_bytes_(max_text_bytes) {}

  // As Grammar's, once for each schema. Members in another order are another schema, as the order in which they are written
  // is. Errors are not kept.
  Compiled any_json_object() { return get("object", Grammar::any_json_object); }
  Compiled json_schema(const Json& schema);
  Compiled tool_calls(ChatFormat format, std::span<const Tool> tools, const ToolCallOptions& options = {});
  // compile() for a text that says all that it depends on.
  Compiled get(std::string text, const std::function<Compiled()>& compile);

  size_t size() const;

 private:
  struct Entry {
    std::string text;
    std::shared_ptr<const Grammar> grammar;
  };

  const size_t max_grammars_, max_text_bytes_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;                                                 // the most recently used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> places_;  // by the entries' own texts
  size_t text_bytes_ = 0;
};

}  // namespace fathom
