#include "eval/report.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <unordered_set>

#include "base/file.h"
#include "checkpoint/json_text.h"
#include "engine/json_members.h"
#include "tasks/random.h"

namespace fathom {

namespace {

constexpr int64_t kReportFormat = 1;  // of the file; raised when a field changes its meaning, or an answer its grade

std::string_view kv_name(LatentFormat format) {
  return format == LatentFormat::kF32 ? "f32" : format == LatentFormat::kFp8 ? "fp8" : "bf16";
}

// Some of a file's bytes: 16 pieces from its first to its last byte, which is all of a small one. Another training
// changes nearly every weight, so pieces tell it apart; reading hundreds of gigabytes would not be worth it.
std::string sampled_bytes(const std::filesystem::path& file, uint64_t size) {
  constexpr uint64_t kPieces = 16, kPiece = 4096;
  std::ifstream in(file, std::ios::binary);
  std::string bytes, piece;
  const bool whole = size <= kPieces * kPiece;
  for (uint64_t i = 0; i < (whole ? 1 : kPieces); ++i) {
    piece.resize(whole ? size : kPiece);
    in.seekg(static_cast<std::streamoff>(whole ? 0 : (size - kPiece) * i / (kPieces - 1)));
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    bytes += piece;
  }
  return bytes;
}

// The same wherever the files are and whenever they were copied.
std::string checkpoint_hash(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::filesystem::path& path = entry.path();
    if (path.extension() != ".safetensors" && path.extension() != ".json") continue;
    const auto size = std::filesystem::file_size(path, error);
    if (error) continue;  // a folder of that name
    files[path.filename().string()] = fmt::format("{} {:016x}", size, hash_text(sampled_bytes(path, size)));
  }
  std::string text;
  for (const auto& [name, state] : files) text += name + " " + state + "\n";
  return fmt::format("{:016x}", hash_text(text));
}

using Answers = std::vector<const EvalAnswer*>;

int64_t percentile(const std::vector<int64_t>& rising, int percent) {
  // The nearest rank: the smallest value that this share does not exceed.
  const size_t rank = (rising.size() * static_cast<size_t>(percent) + 99) / 100;
  return rising[std::max<size_t>(rank, 1) - 1];
}

Json score_json(const ScoreRow& row) {
  const Score& s = row.score;
  Json json = Json::object();
  if (!row.task.empty()) json["task"] = row.task;
  if (row.thinking) json["thinking"] = *row.thinking;
  if (row.length) json["length"] = *row.length;
  if (row.depth) json["depth"] = *row.depth;
  json["accuracy"] = s.accuracy.value;
  json["low"] = s.accuracy.interval.low;
  json["high"] = s.accuracy.interval.high;
  json["answers"] = s.accuracy.answers;
  json["questions"] = s.accuracy.questions;
  json["mean_tokens"] = s.mean_tokens;
  json["median_tokens"] = s.median_tokens;
  json["p95_tokens"] = s.p95_tokens;
  json["cut"] = s.cut;
  json["unanswered"] = s.unanswered;
  json["with_calls"] = s.with_calls;
  json["malformed_calls"] = s.malformed;
  return json;
}

Json rows_json(std::span<const ScoreRow> rows) {
  Json json = Json::array();
  for (const ScoreRow& row : rows) json.push_back(score_json(row));
  return json;
}

// Rows of those answers that agree in what `key` gives; they come in the order of their keys.
template <typename Key>
void add_rows(std::vector<ScoreRow>& rows, const Answers& answers, const Key& key) {
  struct Group {
    ScoreRow row;
    Answers answers;
  };
  using Order = std::tuple<bool, int64_t, double>;
  std::map<Order, Group> groups;
  for (const EvalAnswer* a : answers) {
    const ScoreRow row = key(*a);
    Group& group = groups[{row.thinking.value_or(false), row.length.value_or(0), row.depth.value_or(0)}];
    group.row = row;
    group.answers.push_back(a);
  }
  for (auto& [order, group] : groups) {
    group.row.score = score_answers(group.answers);
    rows.push_back(std::move(group.row));
  }
}

}  // namespace

EvalRun describe_run(const Engine& engine, const EvalSettings& settings) {
  const EngineSettings& e = engine.settings();
  EvalRun run;
  std::error_code error;
  const auto whole = std::filesystem::canonical(engine.store().folder(), error);
  run.model = (error ? engine.store().folder() : whole).string();
  run.model_type = engine.config().model_type;
  run.checkpoint = checkpoint_hash(engine.store().folder());
  run.attention = e.dense_attention || !engine.config().sparse() ? "dense" : "sparse";
  run.numerics = e.numerics == Numerics::kW8A8 ? "w8a8" : "w8a16";
  run.kv = kv_name(e.latent_format);
  run.isa = isa_name(engine.isa());
  run.reproducible = e.reproducible;
  run.context = engine.context();
  run.settings = settings;
  return run;
}

Score score_answers(std::span<const EvalAnswer* const> answers) {
  Score score;
  std::vector<Observation> observations;
  std::vector<int64_t> tokens;
  for (const EvalAnswer* a : answers) {
    observations.push_back({a->question, a->correct ? 1.0 : 0.0});
    tokens.push_back(a->tokens);
    score.mean_tokens += static_cast<double>(a->tokens);
    score.cut += a->cut;
    score.unanswered += !a->answered;
    score.with_calls += a->calls > 0;
    score.malformed += a->malformed_calls > 0;
  }
  score.accuracy = estimate_share(observations);
  if (tokens.empty()) return score;
  score.mean_tokens /= static_cast<double>(tokens.size());
  std::ranges::sort(tokens);
  score.median_tokens = percentile(tokens, 50);
  score.p95_tokens = percentile(tokens, 95);
  return score;
}

ScoreTables score_tables(const EvalReport& report) {
  ScoreTables tables;
  Answers all, lookups;
  for (const EvalAnswer& a : report.answers) {
    all.push_back(&a);
    if (a.length > 0) lookups.push_back(&a);
  }
  tables.overall.score = score_answers(all);
  const auto mode = [](const EvalAnswer& a) { return ScoreRow{.thinking = a.thinking}; };
  const auto length = [](const EvalAnswer& a) { return ScoreRow{.thinking = a.thinking, .length = a.length}; };
  const auto depth = [](const EvalAnswer& a) {
    return ScoreRow{.thinking = a.thinking, .length = a.length, .depth = a.depth};
  };
  add_rows(tables.by_mode, all, mode);
  add_rows(tables.by_length, lookups, length);
  add_rows(tables.by_depth, lookups, depth);
  for (const std::string& task : report.run.settings.tasks) {
    Answers own;
    for (const EvalAnswer* a : all)
      if (a->task == task) own.push_back(a);
    const auto named = [&](const auto& key) {
      return [&task, key](const EvalAnswer& a) {
        ScoreRow row = key(a);
        row.task = task;
        return row;
      };
    };
    add_rows(tables.by_task, own, named(mode));
    if (own.empty() || own[0]->length == 0) continue;
    add_rows(tables.by_length, own, named(length));
    add_rows(tables.by_depth, own, named(depth));
  }
  return tables;
}

std::string report_json(const EvalReport& report) {
  const ScoreTables tables = score_tables(report);
  Json json = Json::object();
  json["fathom_eval"] = kReportFormat;
  Json all = json_from_fields(report);
  json["run"] = std::move(all["run"]);
  json["speed"] = std::move(all["speed"]);
  json["planned"] = report.planned;
  json["overall"] = score_json(tables.overall);
  json["by_mode"] = rows_json(tables.by_mode);
  json["by_task"] = rows_json(tables.by_task);
  json["by_length"] = rows_json(tables.by_length);
  json["by_depth"] = rows_json(tables.by_depth);
  json["answers"] = std::move(all["answers"]);
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<EvalReport> load_eval_report(const std::filesystem::path& file) {
  constexpr size_t kMaxBytes = size_t{4} << 30;
  FATHOM_TRY(const std::string text, read_file(file, kMaxBytes));
  const auto json = parse_json(text);
  if (!json) return fail("{}: {}", file.string(), json.error().message);
  if (!json->is_object() || !json->contains("fathom_eval"))
    return fail("{}: not the output of 'fathom eval --json'", file.string());
  if (json->at("fathom_eval") != kReportFormat)
    return fail("{}: fathom_eval: found {}, expected {}: written by another version of fathom; ask again",
                file.string(), in_quotes(json->at("fathom_eval").dump()), kReportFormat);
  Problems problems;
  EvalReport report;
  read_fields(*json, "", report, problems);
  std::unordered_set<std::string> keys;
  for (size_t i = 0; i < report.answers.size(); ++i)
    if (!keys.insert(answer_key(report.answers[i])).second) problems.add("answers[{}]: the same as an earlier one", i);
  if (!problems.empty()) return tl::unexpected(problems.error(file.string()));
  return report;
}

}  // namespace fathom
