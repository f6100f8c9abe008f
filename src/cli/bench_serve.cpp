// fathom bench serve: how a server does under load, over HTTP.
#include <fmt/format.h>
#include <sys/resource.h>

#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "load/load_report.h"
#include "load/load_run.h"

namespace fathom {

namespace {

using namespace load;

const std::map<std::string, WorkloadKind> kWorkloads = {{"fixed", WorkloadKind::kFixed},
                                                        {"random", WorkloadKind::kRandom},
                                                        {"conversations", WorkloadKind::kConversations},
                                                        {"long", WorkloadKind::kLong},
                                                        {"file", WorkloadKind::kFile}};

struct LoadOptions {
  LoadSettings settings;
  std::string workload, distribution = "uniform", endpoint = "chat", file, body, goodput, json, html, responses;
  std::optional<int64_t> prompt, generate;
  std::optional<bool> ignore_eos;
  std::vector<std::string> compare;
};

// What the options leave open depends on the workload.
Result<LoadSettings> load_settings(const LoadOptions& options) {
  LoadSettings settings = options.settings;
  WorkloadSettings& w = settings.workload;
  w.file = options.file;
  if (!options.workload.empty())
    w.kind = kWorkloads.at(options.workload);
  else
    w.kind = options.file.empty() ? WorkloadKind::kFixed : WorkloadKind::kFile;
  const bool file = w.kind == WorkloadKind::kFile;
  w.normal = options.distribution == "normal";
  w.prompt_tokens = options.prompt.value_or(w.kind == WorkloadKind::kLong ? 16384 : 512);
  w.output_tokens = options.generate.value_or(file ? 0 : 128);
  settings.request.endpoint = options.endpoint == "chat" ? Endpoint::kChat : Endpoint::kCompletions;
  settings.request.ignore_eos = options.ignore_eos.value_or(!file);
  if (!settings.requests && !settings.duration_s) settings.requests = 32;
  settings.keep_texts = !options.responses.empty();
  FATHOM_TRY(settings.goodput, parse_goodput(options.goodput));
  if (!options.body.empty()) {
    FATHOM_TRY(settings.request.extra, parse_json(options.body, "--body"));
  }
  return settings;
}

// Each connection is an open file: as many as the system lets us have.
void raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

Result<int> run_load_test(const LoadOptions& options) {
  FATHOM_TRY(const LoadSettings settings, load_settings(options));
  raise_file_limit();
  std::optional<Progress> progress;
  std::string shown;
  const auto on_progress = [&](const LoadProgress& p) {
    if (p.part != shown) {
      shown = p.part;
      progress.emplace(shown, static_cast<uint64_t>(p.total), std::string(p.unit));
    }
    progress->set(static_cast<uint64_t>(p.done));
  };
  InterruptFlag interrupt;
  auto run = run_load(settings, on_progress, interrupt.flag());
  progress.reset();
  if (!run) return tl::unexpected(run.error());
  const LoadReport report = make_report(*std::move(run));
  std::fputs(report_text(report).c_str(), stdout);
  if (!options.json.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.json, report_json(report)));
  if (!options.html.empty()) FATHOM_RETURN_IF_ERROR(write_file_atomically(options.html, report_html(report)));
  if (!options.responses.empty())
    FATHOM_RETURN_IF_ERROR(write_file_atomically(options.responses, responses_jsonl(report)));
  if (report.succeeded > 0) return 0;
  return fail("no request succeeded");
}

Result<int> compare(const LoadOptions& options) {
  if (!options.json.empty() || !options.html.empty() || !options.responses.empty())
    return fail("--json, --html, --responses: of a comparison there is none; it goes to stdout");
  FATHOM_TRY(const std::string text, compare_reports(options.compare[0], options.compare[1]));
  std::fputs(text.c_str(), stdout);
  return 0;
}

// CLI11 would take an optional for a counter, and count to 0 where the flag is not given.
void add_choice(CLI::App& command, const std::string& names, std::optional<bool>& choice,
                const std::string& description) {
  command.add_flag_function(
      names, [&choice](int64_t count) { choice = count > 0; }, description);
}

void add_workload(CLI::App& command, LoadOptions& options) {
  WorkloadSettings& w = options.settings.workload;
  std::vector<std::string> names;
  for (const auto& [name, kind] : kWorkloads) names.push_back(name);
  command
      .add_option("--workload", options.workload,
                  "fixed: prompts and answers of one length; random: lengths drawn around means; conversations: turns\n"
                  "whose history grows; long: a question after a document; file: what --file has (default: fixed)")
      ->check(CLI::IsMember(names))
      ->type_name("NAME");
  const auto tokens = [&](const char* name, auto& value, const char* description) {
    return command.add_option(name, value, description)
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 24))
        ->type_name("N");
  };
  tokens("--prompt", options.prompt, "Tokens that a request adds (default: 512; long: 16384)");
  tokens("--gen", options.generate, "Most tokens of an answer; 0: no limit is sent (default: 128; file: 0)");
  tokens("--system", w.system_tokens, "Tokens of a system message that all requests share")->capture_default_str();
  command.add_option("--spread", w.spread, "random: half the width (normal: the deviation) of lengths over their mean")
      ->type_name("SHARE")
      ->capture_default_str();
  command.add_option("--distribution", options.distribution, "random: how lengths are drawn")
      ->check(CLI::IsMember({"uniform", "normal"}))
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--turns", w.turns, "conversations: requests of each")->type_name("N")->capture_default_str();
  command.add_option("--pause", w.pause_s, "conversations: seconds between an answer and the next turn")
      ->type_name("S")
      ->capture_default_str();
  command.add_option("--documents", w.documents, "long: so many different ones (default: each request its own)")
      ->type_name("N");
  command
      .add_option("--file", options.file,
                  "JSON lines: bodies, arrays of messages, or a batch file; sent in order, again and again")
      ->type_name("FILE");
  command.add_option("--seed", w.seed, "Of the texts, lengths and arrivals")->type_name("N")->capture_default_str();
}

void add_requests(CLI::App& command, LoadOptions& options) {
  RequestSettings& r = options.settings.request;
  command.add_option("--endpoint", options.endpoint, "chat or completions")
      ->check(CLI::IsMember({"chat", "completions"}))
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--model", r.model, "Default: the first that the server lists")->type_name("NAME");
  command
      .add_option("--api-key", options.settings.api_key,
                  "Other users of this machine can see it: better in the environment's FATHOM_API_KEY")
      ->envname("FATHOM_API_KEY")
      ->type_name("KEY");
  command.add_flag("--insecure", options.settings.insecure, "https: take any certificate");
  command.add_option("--timeout", options.settings.timeout_s, "Seconds that a request may take")
      ->type_name("S")
      ->capture_default_str();
  add_choice(command, "--thinking,!--no-thinking", r.thinking, "Ask for reasoning, or for none");
  add_choice(command, "--ignore-eos,!--no-ignore-eos", options.ignore_eos,
             "Answers of exactly --gen tokens, where the server knows ignore_eos (default: yes; file: no)");
  command.add_option("--temperature", r.temperature, "Default: the server's")->type_name("T");
  command.add_option("--sampling-seed", r.seed, "The \"seed\" of each request")->type_name("N");
  command.add_option("--body", options.body, "Members for every body; null removes one")->type_name("JSON");
}

void add_arrivals(CLI::App& command, LoadOptions& options) {
  LoadSettings& s = options.settings;
  auto* rate =
      command
          .add_option(
              "--rate", s.rate,
              "Open loop: requests a second at random times (Poisson); inf: all at once. Of conversations, first\n"
              "and later turns count")
          ->type_name("R");
  command.add_option("--concurrency", s.concurrency, "Closed loop: clients that send one request after the other")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->type_name("C")
      ->capture_default_str()
      ->excludes(rate);
  command.add_option("--requests", s.requests, "End after so many (default, without --duration: 32)")->type_name("N");
  command.add_option("--duration", s.duration_s, "Begin no more after so many seconds")->type_name("S");
  command.add_option("--warmup", s.warmup, "Requests before, which count for nothing")
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--goodput", options.goodput,
                  "Count the requests within these milliseconds, \"ttft:500,tpot:50\"; also first_answer, e2e")
      ->type_name("LIMITS");
}

}  // namespace

CLI::App* add_bench_serve(CLI::App& bench, CommandContext& context) {
  auto options = std::make_shared<LoadOptions>();
  CLI::App* command = bench.add_subcommand("serve", "Load on any OpenAI-compatible server, and how it bears it");
  command->footer(
      "Texts are common words in random order. Their tokens are counted by the server's /tokenize, where it has one. "
      "A\n"
      "second run of one seed finds the first one's prompts in the server's cache: take another --seed.\n\n"
      "  fathom bench serve --url http://127.0.0.1:8000 --concurrency 16 --requests 200 --json a.json\n"
      "  fathom bench serve --url http://127.0.0.1:8000 --workload conversations --system 1024 --rate 2 --duration 60\n"
      "  fathom bench serve --compare a.json b.json");
  auto* what = command->add_option_group("What to do");
  what->add_option("--url", options->settings.url, "The server: http://HOST:PORT, https://HOST, with /v1 or without")
      ->type_name("URL");
  what->add_option("--compare", options->compare, "Compare two files that --json wrote: the second over the first")
      ->expected(2)
      ->type_name("A.json B.json");
  what->require_option(1);
  add_workload(*command, *options);
  add_requests(*command, *options);
  add_arrivals(*command, *options);
  command->add_option("--json", options->json, "Also write everything to this file")->type_name("FILE");
  command->add_option("--html", options->html, "Also write a page with curves to this file")->type_name("FILE");
  command->add_option("--save-responses", options->responses, "Also write the answers' texts, a JSON line each")
      ->type_name("FILE");
  command->callback([options, &context] {
    context.action = [options] {
      return exit_code(options->compare.empty() ? run_load_test(*options) : compare(*options));
    };
  });
  return command;
}

}  // namespace fathom
