// What is sent: scripts drawn from a seed or read from a file, and the bodies that become of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "load/settings.h"
#include "load/text_source.h"
#include "text/json.h"

namespace fathom::load {

// One conversation, of one turn mostly.
struct Script {
  struct Turn {
    std::string text;           // of the user; empty: `body` says it all
    int64_t prompt_tokens = 0;  // as asked for: of all before it too, but for the server's template; 0: not known
    int64_t output_tokens = 0;  // the answer's limit; 0: none
  };
  std::string system;
  std::vector<Turn> turns;
  Json body = Json::object();  // of a file's line
};

class Workload {
 public:
  // `source` as its words are counted. Warm-up draws from a stream of its own: its prompts come only once.
  static Result<Workload> open(const WorkloadSettings& settings, const TextSource& source, bool warmup = false);

  Script next();
  // Requests a script, the same for all.
  int64_t turns() const { return settings_.kind == WorkloadKind::kConversations ? settings_.turns : 1; }

 private:
  Workload(const WorkloadSettings& settings, const TextSource& source, bool warmup);
  Status read_file_lines();
  int64_t draw_length(int64_t mean);

  WorkloadSettings settings_;
  TextSource source_;
  LoadRandom random_;
  MadeText system_;
  std::vector<MadeText> documents_;
  std::vector<Json> bodies_;
  size_t next_body_ = 0;
};

// A script under way: makes the body of each turn from the answers before.
class Conversation {
 public:
  Conversation(Script script, const RequestSettings& settings, const std::string& model);

  bool done() const { return turn_ == script_.turns.size(); }
  // For the next turn. Not when done.
  std::string body() const;
  const Script::Turn& turn() const { return script_.turns[turn_]; }
  void answered(const std::string& text);

 private:
  Script script_;
  const RequestSettings& settings_;
  const std::string& model_;
  Json messages_ = Json::array();  // chat
  std::string prompt_;             // completions
  size_t turn_ = 0;
};

}  // namespace fathom::load
