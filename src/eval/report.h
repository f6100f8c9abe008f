// What a test found: the answers and what they add up to, as it is printed, written as JSON, read back and shown as a
// page. docs/evaluation.md defines every figure.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "eval/answers.h"
#include "eval/settings.h"
#include "eval/statistics.h"

namespace fathom {

// What was asked, and of whom: everything that answers depend on.
struct EvalRun {
  std::string model, model_type;
  std::string checkpoint;  // a hash of its files' names, sizes and some bytes: another training, another hash
  std::string attention;   // "sparse"; "dense": without the indexer, or a model that has none
  std::string numerics, kv, isa;
  bool reproducible = false;
  int64_t context = 0;
  EvalSettings settings;
};
template <typename Visitor>
void fields(Visitor& v, EvalRun& r) {  // engine/json_members.h
  v("model", r.model);
  v("model_type", r.model_type);
  v("checkpoint", r.checkpoint);
  v("attention", r.attention);
  v("numerics", r.numerics);
  v("kv", r.kv);
  v("isa", r.isa);
  v("reproducible", r.reproducible);
  v("context", r.context);
  v("settings", r.settings);
}
EvalRun describe_run(const Engine& engine, const EvalSettings& settings);

// How long what was generated took; answers that an earlier run left are not among it.
struct EvalSpeed {
  double seconds = 0;
  int64_t prompt_tokens = 0, answer_tokens = 0;
};
template <typename Visitor>
void fields(Visitor& v, EvalSpeed& s) {
  v("seconds", s.seconds);
  v("prompt_tokens", s.prompt_tokens);
  v("answer_tokens", s.answer_tokens);
}

struct EvalReport {
  EvalRun run;
  EvalSpeed speed;
  int64_t planned = 0;  // answers; those that are missing were interrupted
  std::vector<EvalAnswer> answers;
};
template <typename Visitor>
void fields(Visitor& v, EvalReport& r) {
  v("run", r.run);
  v("speed", r.speed);
  v("planned", r.planned);
  v("answers", r.answers);
}

// What some answers add up to.
struct Score {
  Estimate accuracy;
  double mean_tokens = 0;
  int64_t median_tokens = 0, p95_tokens = 0;
  int64_t cut = 0, unanswered = 0;
  int64_t with_calls = 0, malformed = 0;  // answers with tool calls; those of them with a malformed one
};

// A row of a table. What does not tell it apart from others is empty.
struct ScoreRow {
  std::string task{};
  std::optional<bool> thinking{};
  std::optional<int64_t> length{};
  std::optional<double> depth{};
  Score score{};
};
struct ScoreTables {
  ScoreRow overall;
  std::vector<ScoreRow> by_mode;    // thinking
  std::vector<ScoreRow> by_task;    // task, thinking; in the order of the settings
  std::vector<ScoreRow> by_length;  // look-ups. task, thinking, length; task empty: all of them
  std::vector<ScoreRow> by_depth;   // look-ups. task, thinking, length, depth; task empty: all of them
};
Score score_answers(std::span<const EvalAnswer* const> answers);
ScoreTables score_tables(const EvalReport& report);

std::string report_json(const EvalReport& report);
// Reports every problem of the file at once.
Result<EvalReport> load_eval_report(const std::filesystem::path& file);
// For people.
std::string report_text(const EvalReport& report);
// A page that needs nothing else.
std::string report_html(const EvalReport& report);

}  // namespace fathom
