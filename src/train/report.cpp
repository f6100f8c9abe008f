#include "train/report.h"

#include <fmt/format.h>

#include <functional>
#include <iterator>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/html_page.h"
#include "base/svg_chart.h"

namespace fathom::train {

namespace {

using svg::escape;
using svg::number_text;
using Field = std::function<std::optional<double>(const StepRecord&)>;

constexpr size_t kPoints = 200;  // of a curve: more than that is finer than a line is wide

std::vector<StepRecord> of_stage(std::span<const StepRecord> records, const std::string& stage) {
  std::vector<StepRecord> found;
  for (const StepRecord& r : records)
    if (r.stage == stage) found.push_back(r);
  return found;
}

svg::Series curve(const std::string& name, const std::vector<StepRecord>& records, const Field& field) {
  svg::Series series{name, {}};
  const size_t per_point = (records.size() + kPoints - 1) / kPoints;
  double tokens = 0, sum = 0;
  size_t seen = 0, count = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    tokens += static_cast<double>(records[i].tokens);
    if (const auto value = field(records[i])) {
      sum += *value;
      ++count;
    }
    if (++seen < per_point && i + 1 < records.size()) continue;
    if (count > 0) series.points.push_back({tokens, sum / static_cast<double>(count)});
    seen = count = 0;
    sum = 0;
  }
  return series;
}

class Page {
 public:
  Page(const Recipe& recipe, std::span<const StepRecord> records) {
    for (const Stage& stage : recipe.stages)
      if (auto found = of_stage(records, stage.name); !found.empty()) stages_.push_back({&stage, std::move(found)});
    add("<h1>Training of {}</h1>", escape(recipe.name));
    table();
    out_ += "<h2>Curves</h2><div class='charts'>";
    chart("Loss", "nats a token", [](const StepRecord& r) { return std::optional(r.loss); });
    chart("Loss of the MTP layer", "nats a token", [](const StepRecord& r) { return r.mtp_loss; });
    chart("Indexer: KL to the attention", "nats", [](const StepRecord& r) { return r.kl; });
    chart("Attention held by the selection", "share", [](const StepRecord& r) { return r.recall; });
    chart("Busiest expert over the mean", "ratio", [](const StepRecord& r) { return r.balance; });
    chart("Norm of the gradient", "norm", [](const StepRecord& r) { return std::optional(r.gradient_norm); });
    chart("Learning rate", "rate", [](const StepRecord& r) { return std::optional(r.learning_rate); });
    chart("Speed", "tokens/s", [](const StepRecord& r) { return std::optional(r.tokens_per_second); });
    out_ += "</div>";
  }

  std::string build(const Recipe& recipe) const { return html_page("Training of " + recipe.name, out_); }

 private:
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  void table() {
    out_ +=
        "<div class='scroll'><table><tr><th>stage<th>learns, attention<th>steps<th>tokens<th>loss<th>MTP loss<th>KL"
        "<th>recall<th>tokens/s<th>peak MB</tr>";
    for (const auto& [stage, records] : stages_) {
      double tokens = 0, seconds = 0;
      for (const StepRecord& r : records) tokens += static_cast<double>(r.tokens), seconds += r.seconds;
      const StepRecord& last = records.back();
      const auto text = [](const std::optional<double>& value) {
        return value ? number_text(*value) : std::string("–");
      };
      std::optional<double> recall;
      for (const StepRecord& r : records)
        if (r.recall) recall = r.recall;
      add("<tr><td>{}<td>{}, {}<td>{} / {}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.0f}</tr>", escape(stage->name),
          stage->indexer_only ? "indexer" : "all", stage->sparse_attention ? "sparse" : "dense", last.step,
          stage->steps, number_text(tokens), number_text(last.loss), text(last.mtp_loss), text(last.kl), text(recall),
          number_text(tokens / seconds), last.memory_mb);
    }
    out_ += "</table></div>";
  }

  void chart(const char* title, const char* y_label, const Field& field) {
    svg::LineChart chart{
        .x_label = "tokens of the stage", .y_label = y_label, .series = {}, .unit = "", .markers = false};
    for (const auto& [stage, records] : stages_)
      if (auto series = curve(stage->name, records, field); series.points.size() > 1)
        chart.series.push_back(std::move(series));
    if (!chart.series.empty()) add("<figure><h3>{}</h3>{}</figure>", title, svg::line_chart(chart));
  }

  struct StageRecords {
    const Stage* stage;
    std::vector<StepRecord> records;
  };
  std::vector<StageRecords> stages_;
  std::string out_;
};

}  // namespace

Status write_report(const std::filesystem::path& file, const Recipe& recipe, std::span<const StepRecord> records) {
  return write_file_atomically(file, Page(recipe, records).build(recipe));
}

}  // namespace fathom::train
