// fathom usage: what a ledger says was used, and what it cost.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include "base/text_lines.h"
#include "cli/command.h"
#include "cli/dates.h"
#include "serve/usage_report.h"
#include "text/json.h"

namespace fathom {

namespace {

struct UsageOptions {
  std::string ledger, by = "key", since, until;
  bool json = false;
};

Json line_json(const UsageLine& line, const std::string& by) {
  return {{by, line.name},
          {"requests", line.requests},
          {"failed", line.failed},
          {"aborted", line.aborted},
          {"prompt_tokens", line.prompt_tokens},
          {"cached_tokens", line.cached_tokens},
          {"completion_tokens", line.completion_tokens},
          {"reasoning_tokens", line.reasoning_tokens},
          {"price_usd", line.price_usd}};
}

std::string table(std::vector<UsageLine> lines, const std::string& by) {
  lines.push_back(total_of(lines));
  size_t width = by.size();
  for (UsageLine& line : lines) {
    if (line.name.empty()) line.name = "(none)";
    width = std::max(width, line.name.size());
  }
  std::string out;
  append_line(out, "{:<{}}  {:>9}  {:>7}  {:>7}  {:>14}  {:>14}  {:>6}  {:>14}  {:>14}  {:>12}", by, width, "requests",
              "failed", "aborted", "prompt", "from cache", "", "answer", "reasoning", "USD");
  for (const UsageLine& line : lines) {
    const double hits = line.prompt_tokens > 0
                            ? 100.0 * static_cast<double>(line.cached_tokens) / static_cast<double>(line.prompt_tokens)
                            : 0.0;
    append_line(out, "{:<{}}  {:>9}  {:>7}  {:>7}  {:>14}  {:>14}  {:>4.0f} %  {:>14}  {:>14}  {:>12.6f}", line.name,
                width, line.requests, line.failed, line.aborted, line.prompt_tokens, line.cached_tokens, hits,
                line.completion_tokens, line.reasoning_tokens, line.price_usd);
  }
  return out;
}

Result<int> report(const UsageOptions& options) {
  UsageQuery query{.by = options.by == "key" ? UsageBy::kKey : options.by == "day" ? UsageBy::kDay : UsageBy::kModel};
  if (!options.since.empty()) {
    FATHOM_TRY(query.since_s, day_start(options.since));
  }
  if (!options.until.empty()) {
    FATHOM_TRY(const int64_t day, day_start(options.until));
    query.until_s = day + kDaySeconds;
  }
  FATHOM_TRY(const std::vector<UsageLine> lines, usage_report(options.ledger, query));
  std::string text;
  if (options.json) {
    Json json = {{"usage", Json::array()}, {"total", line_json(total_of(lines), options.by)}};
    json["total"].erase(options.by);
    for (const UsageLine& line : lines) json["usage"].push_back(line_json(line, options.by));
    text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  } else {
    text = table(lines, options.by);
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

void add_usage(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<UsageOptions>();
  CLI::App* command = app.add_subcommand("usage", "What a server's ledger says was used, and what it cost");
  command->footer(
      "Tokens of prompts, those of them found in the cache, and of answers, those of them that were reasoning. The\n"
      "server may be running.\n\n"
      "  fathom usage --ledger ledger.db --by day --since 2025-11-01\n"
      "  fathom usage --ledger ledger.db --by key --json");
  command->add_option("--ledger", options->ledger, "The ledger of `fathom serve`")->required()->type_name("FILE");
  command->add_option("--by", options->by, "key, day (UTC) or model")
      ->check(CLI::IsMember({"key", "day", "model"}))
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--since", options->since, "From this day on")->type_name("DATE");
  command->add_option("--until", options->until, "To this day, it included")->type_name("DATE");
  command->add_flag("--json", options->json, "Print one JSON object");
  command->callback([options, &context] { context.action = [options] { return exit_code(report(*options)); }; });
}

}  // namespace fathom
