#include "grammar/grammar_cache.h"

#include <iterator>
#include <utility>

namespace fathom {

namespace {

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

GrammarCache::Compiled GrammarCache::json_schema(const Json& schema) {
  return get("schema " + text_of(schema), [&] { return Grammar::json_schema(schema); });
}

GrammarCache::Compiled GrammarCache::tool_calls(ChatFormat format, std::span<const Tool> tools,
                                                const ToolCallOptions& options) {
  Json all = {static_cast<int>(format),  options.optional,         options.parallel,
              options.name.value_or(""), options.name.has_value(), options.strict};
  for (const Tool& tool : tools) all.push_back({tool.name, tool.parameters});
  return get("tools " + text_of(all), [&] { return Grammar::tool_calls(format, tools, options); });
}

GrammarCache::Compiled GrammarCache::get(std::string text, const std::function<Compiled()>& compile) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto place = places_.find(text); place != places_.end()) {
      entries_.splice(entries_.begin(), entries_, place->second);
      return entries_.front().grammar;
    }
  }
  FATHOM_TRY(std::shared_ptr<const Grammar> grammar, compile());
  std::list<Entry> dropped;  // freed after the lock
  const std::lock_guard lock(mutex_);
  if (const auto place = places_.find(text); place != places_.end()) return place->second->grammar;
  text_bytes_ += text.size();
  entries_.push_front({std::move(text), grammar});
  places_.emplace(entries_.front().text, entries_.begin());
  while (!entries_.empty() && (entries_.size() > max_grammars_ || text_bytes_ > max_text_bytes_)) {
    const auto last = std::prev(entries_.end());
    places_.erase(last->text);
    text_bytes_ -= last->text.size();
    dropped.splice(dropped.end(), entries_, last);
  }
  return grammar;
}

size_t GrammarCache::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace fathom
