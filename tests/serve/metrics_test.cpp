// Metrics: what events become, in the text that Prometheus reads; and the dashboard over them.
#include "serve/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "serve/support.h"
#include "text/json.h"

namespace fathom {
namespace {

using namespace test;
using testing::HasSubstr;

LedgerRow row() {
  return {.model = "nano",
          .endpoint = "/v1/chat/completions",
          .status = 200,
          .finish_reason = "stop",
          .usage = {.prompt_tokens = 100, .cached_tokens = 64, .completion_tokens = 11, .reasoning_tokens = 4},
          .choices = 1,
          .queue_ms = 3,
          .total_ms = 1200,
          .first_token_ms = 200,
          .first_answer_ms = 600,
          .price_usd = 0.5};
}

// The value of a series, written as in the text: NAME{label="value",…}.
std::optional<double> value(Metrics& metrics, const std::string& series) {
  std::istringstream lines(metrics.text());
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(series + " ")) return std::strtod(line.c_str() + series.size() + 1, nullptr);
  return std::nullopt;
}

TEST(Metrics, ARequestThatWasAnswered) {
  Metrics metrics("1.2.3");
  metrics.request_done(row());
  const std::string nano = "{model_name=\"nano\"}";
  EXPECT_EQ(value(metrics, "fathom_build_info{version=\"1.2.3\"}"), 1);
  EXPECT_EQ(value(metrics, "fathom_request_success_total{finished_reason=\"stop\",model_name=\"nano\"}"), 1);
  EXPECT_EQ(value(metrics, "fathom_request_success_total{finished_reason=\"abort\",model_name=\"nano\"}"), 0);
  EXPECT_EQ(value(metrics, "fathom_time_to_first_token_seconds_sum" + nano), 0.2);
  EXPECT_EQ(value(metrics, "fathom_time_to_first_answer_token_seconds_sum" + nano), 0.6);
  EXPECT_EQ(value(metrics, "fathom_request_time_per_output_token_seconds_sum" + nano), 0.1) << "1 s for 10 more tokens";
  EXPECT_EQ(value(metrics, "fathom_e2e_request_latency_seconds_sum" + nano), 1.2);
  EXPECT_EQ(value(metrics, "fathom_request_queue_time_seconds_sum" + nano), 0.003);
  EXPECT_EQ(value(metrics, "fathom_request_prompt_tokens_sum" + nano), 100);
  EXPECT_EQ(value(metrics, "fathom_request_generation_tokens_sum" + nano), 11);
  EXPECT_EQ(value(metrics, "fathom_reasoning_tokens_total" + nano), 4);
  EXPECT_EQ(value(metrics, "fathom_cost_usd_total" + nano), 0.5);
  EXPECT_EQ(value(metrics, "fathom_e2e_request_latency_seconds_bucket{model_name=\"nano\",le=\"1\"}"), 0);
  EXPECT_EQ(value(metrics, "fathom_e2e_request_latency_seconds_bucket{model_name=\"nano\",le=\"2.5\"}"), 1);
  EXPECT_EQ(value(metrics, "fathom_e2e_request_latency_seconds_bucket{model_name=\"nano\",le=\"+Inf\"}"), 1);
}

TEST(Metrics, ChoicesComeSideBySide) {
  Metrics metrics("1");
  LedgerRow two = row();
  two.choices = 2;
  two.usage.completion_tokens = 22;
  metrics.request_done(two);
  EXPECT_EQ(value(metrics, "fathom_request_time_per_output_token_seconds_sum{model_name=\"nano\"}"), 0.1);
}

TEST(Metrics, OneTokenHasNoTimePerToken) {
  Metrics metrics("1");
  LedgerRow one = row();
  one.usage.completion_tokens = 1;
  metrics.request_done(one);
  LedgerRow none = row();
  none.usage.completion_tokens = 0;
  none.first_token_ms.reset();
  none.first_answer_ms.reset();
  none.choices = 0;
  metrics.request_done(none);
  EXPECT_EQ(value(metrics, "fathom_request_time_per_output_token_seconds_count{model_name=\"nano\"}"), 0);
  EXPECT_EQ(value(metrics, "fathom_time_to_first_token_seconds_count{model_name=\"nano\"}"), 1);
  EXPECT_EQ(value(metrics, "fathom_e2e_request_latency_seconds_count{model_name=\"nano\"}"), 2);
}

TEST(Metrics, AbortedAndBrokenAndRefused) {
  Metrics metrics("1");
  LedgerRow aborted = row();
  aborted.aborted = true;
  metrics.request_done(aborted);
  EXPECT_EQ(value(metrics, "fathom_request_success_total{finished_reason=\"abort\",model_name=\"nano\"}"), 1);
  EXPECT_EQ(value(metrics, "fathom_request_success_total{finished_reason=\"stop\",model_name=\"nano\"}"), 0);
  EXPECT_EQ(value(metrics, "fathom_e2e_request_latency_seconds_count{model_name=\"nano\"}"), 0);
  EXPECT_EQ(value(metrics, "fathom_time_to_first_token_seconds_count{model_name=\"nano\"}"), 1);
  EXPECT_EQ(value(metrics, "fathom_cost_usd_total{model_name=\"nano\"}"), 0.5) << "it cost what it cost";
  LedgerRow broken = row();
  broken.finish_reason.clear();
  metrics.request_done(broken);
  EXPECT_EQ(value(metrics, "fathom_request_success_total{finished_reason=\"error\",model_name=\"nano\"}"), 1);
  LedgerRow refused = row();
  refused.status = 404;
  refused.model = "whatever a client says";
  metrics.request_done(refused);
  EXPECT_THAT(metrics.text(), Not(HasSubstr("whatever")));
}

TEST(Metrics, HttpByRouteAndStatus) {
  Metrics metrics("1");
  metrics.http("/v1/models", 200, 0.02);
  metrics.http("/v1/models", 200, 0.02);
  metrics.http("/v1/models", 401, 0.02);
  EXPECT_EQ(value(metrics, "fathom_http_requests_total{handler=\"/v1/models\",status=\"200\"}"), 2);
  EXPECT_EQ(value(metrics, "fathom_http_requests_total{handler=\"/v1/models\",status=\"401\"}"), 1);
  EXPECT_EQ(value(metrics, "fathom_http_request_duration_seconds_count{handler=\"/v1/models\"}"), 3);
}

TEST(Metrics, RoutesWithoutEndAreTakenTogether) {
  Metrics metrics("1");
  for (int i = 0; i < 10'000; ++i) metrics.http("/" + std::to_string(i), 404, 0);
  EXPECT_LT(metrics.text().size(), 300'000u);
  EXPECT_EQ(value(metrics, "fathom_http_requests_total{handler=\"other\",status=\"404\"}"), 10'000 - 64);
  metrics.http("/0", 404, 0);
  EXPECT_EQ(value(metrics, "fathom_http_requests_total{handler=\"/0\",status=\"404\"}"), 2);
}

BatcherStats stats() {
  BatcherStats s;
  s.running = 3, s.waiting = 5;
  s.steps = 7, s.read_tokens = 100, s.cached_tokens = 300, s.answer_tokens = 50;
  s.drafted = 20, s.accepted = 15, s.preempted = 2, s.loaded_blocks = 4;
  s.blocks = 100, s.free_blocks = 60, s.idle_blocks = 45;
  return s;
}

TEST(Metrics, TheBatcher) {
  Metrics metrics("1");
  metrics.sample("nano", stats());
  const std::string nano = "{model_name=\"nano\"}";
  EXPECT_EQ(value(metrics, "fathom_num_requests_running" + nano), 3);
  EXPECT_EQ(value(metrics, "fathom_num_requests_waiting" + nano), 5);
  EXPECT_EQ(value(metrics, "fathom_kv_cache_blocks{model_name=\"nano\",state=\"used\"}"), 40);
  EXPECT_EQ(value(metrics, "fathom_kv_cache_blocks{model_name=\"nano\",state=\"idle\"}"), 45);
  EXPECT_EQ(value(metrics, "fathom_kv_cache_blocks{model_name=\"nano\",state=\"free\"}"), 15);
  EXPECT_EQ(value(metrics, "fathom_kv_cache_usage_perc" + nano), 0.4);
  EXPECT_EQ(value(metrics, "fathom_prompt_tokens_total" + nano), 400);
  EXPECT_EQ(value(metrics, "fathom_prompt_tokens_cached_total" + nano), 300);
  EXPECT_EQ(value(metrics, "fathom_generation_tokens_total" + nano), 50);
  EXPECT_EQ(value(metrics, "fathom_engine_steps_total" + nano), 7);
  EXPECT_EQ(value(metrics, "fathom_num_preemptions_total" + nano), 2);
  EXPECT_EQ(value(metrics, "fathom_spec_decode_num_draft_tokens_total" + nano), 20);
  EXPECT_EQ(value(metrics, "fathom_spec_decode_num_accepted_tokens_total" + nano), 15);
  EXPECT_EQ(value(metrics, "fathom_disk_cache_loaded_blocks_total" + nano), 4);
}

TEST(Metrics, CountersNeverFallWhenAModelIsLoadedAnew) {
  Metrics metrics("1");
  const std::string tokens = "fathom_generation_tokens_total{model_name=\"nano\"}";
  BatcherStats s = stats();
  metrics.sample("nano", s);
  s.answer_tokens = 80;
  metrics.sample("nano", s);
  metrics.sample("nano", s);
  EXPECT_EQ(value(metrics, tokens), 80);
  metrics.unloaded("nano");
  EXPECT_EQ(value(metrics, "fathom_num_requests_running{model_name=\"nano\"}"), 0);
  EXPECT_EQ(value(metrics, "fathom_kv_cache_usage_perc{model_name=\"nano\"}"), 0);
  EXPECT_EQ(value(metrics, tokens), 80);
  s.answer_tokens = 100;
  metrics.sample("nano", s);
  EXPECT_EQ(value(metrics, tokens), 180);
  s.answer_tokens = 30;  // anew, and nobody said so
  metrics.sample("nano", s);
  EXPECT_EQ(value(metrics, tokens), 210);
}

TEST(Metrics, DiskCacheAndLedger) {
  Metrics metrics("1");
  EXPECT_EQ(value(metrics, "fathom_ledger_dropped_rows_total"), 0) << "there before anything is dropped";
  metrics.sample("nano", BlockStoreStats{.blocks = 1,
                                         .bytes = 2,
                                         .queued_bytes = 3,
                                         .hits = 4,
                                         .misses = 5,
                                         .damaged = 6,
                                         .written = 7,
                                         .evicted = 8,
                                         .dropped = 9,
                                         .errors = 10,
                                         .last_error = ""});
  const std::vector<std::string> names = {"blocks",
                                          "bytes",
                                          "queued_bytes",
                                          "hits_total",
                                          "misses_total",
                                          "damaged_blocks_total",
                                          "written_blocks_total",
                                          "evicted_blocks_total",
                                          "dropped_blocks_total",
                                          "errors_total"};
  for (size_t i = 0; i < names.size(); ++i)
    EXPECT_EQ(value(metrics, "fathom_disk_cache_" + names[i] + "{model_name=\"nano\"}"), i + 1) << names[i];
  metrics.sample(LedgerStats{.written = 10, .dropped = 3, .queued = 2, .errors = 1});
  metrics.sample(LedgerStats{.written = 12, .dropped = 4, .queued = 1, .errors = 1});
  EXPECT_EQ(value(metrics, "fathom_ledger_written_rows_total"), 12);
  EXPECT_EQ(value(metrics, "fathom_ledger_dropped_rows_total"), 4);
  EXPECT_EQ(value(metrics, "fathom_ledger_queued_rows"), 1);
  EXPECT_EQ(value(metrics, "fathom_ledger_errors_total"), 1);
}

TEST(Metrics, TheProcess) {
  Metrics metrics("1");
  EXPECT_GT(value(metrics, "process_resident_memory_bytes").value_or(0), 1e6);
  EXPECT_GT(value(metrics, "process_open_fds").value_or(0), 2);
  EXPECT_NEAR(value(metrics, "process_start_time_seconds").value_or(0), static_cast<double>(time(nullptr)), 10);
}

// Every series has help and type, names are well-formed, and a name of a model cannot break out of its quotes.
TEST(Metrics, TheTextIsWellFormed) {
  Metrics metrics("1");
  LedgerRow odd = row();
  odd.model = "a\"} 1\nfathom_evil 1\\";
  metrics.request_done(odd);
  metrics.sample("nano", stats());
  const std::regex help(R"(# HELP [a-z_0-9]+ \S.*)"), type(R"(# TYPE [a-z_0-9]+ (counter|gauge|histogram))");
  const std::regex series(R"re([a-z_0-9]+(\{([a-z_]+="([^"\\]|\\.)*",?)+\})? [-+0-9.eInfNa]+)re");
  std::istringstream lines(metrics.text());
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count)
    EXPECT_TRUE(std::regex_match(line, help) || std::regex_match(line, type) || std::regex_match(line, series)) << line;
  EXPECT_GT(count, 300);
  EXPECT_THAT(metrics.text(), Not(HasSubstr("\nfathom_evil")));
}

TEST(Metrics, EightThreads) {
  Metrics metrics("1");
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        metrics.request_done(row());
        metrics.http("/r" + std::to_string(i % 5), 200, 0.1);
        metrics.sample("m" + std::to_string(t), stats());
        if (i % 50 == 0) {
          EXPECT_THAT(metrics.text(), HasSubstr("fathom_"));
        }
        if (i % 70 == 0) metrics.unloaded("m" + std::to_string(t));
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(value(metrics, "fathom_request_success_total{finished_reason=\"stop\",model_name=\"nano\"}"), 1600);
  EXPECT_EQ(value(metrics, "fathom_http_requests_total{handler=\"/r0\",status=\"200\"}"), 320);
}

// --- the dashboard

// The labels of every metric, by its name; of a histogram also under the names of its parts.
std::map<std::string, std::set<std::string>> labels_by_name() {
  Metrics metrics("1");
  metrics.request_done(row());
  metrics.http("/v1/models", 200, 0);
  metrics.sample("nano", stats());
  metrics.sample("nano", BlockStoreStats{});
  std::map<std::string, std::set<std::string>> found;
  std::istringstream lines(metrics.text());
  const std::regex label(R"re(([a-z_]+)=")re");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("#")) continue;
    auto& labels = found[line.substr(0, line.find_first_of("{ "))];
    for (std::sregex_iterator match(line.begin(), line.end(), label), end; match != end; ++match)
      labels.insert((*match)[1]);
  }
  return found;
}

// All values of the members of that name, at any depth.
void collect(const Json& json, const std::string& member, std::vector<Json>& to) {
  if (json.is_object() && json.contains(member)) to.push_back(json[member]);
  if (json.is_structured())
    for (const Json& each : json) collect(each, member, to);
}

// What is wrong with an expression: names that no metric has, labels that its metrics do not have.
std::vector<std::string> problems(const std::string& expression,
                                  const std::map<std::string, std::set<std::string>>& known) {
  std::vector<std::string> found;
  std::set<std::string> labels = {"le"};
  const std::regex name(R"(\b(fathom|process)_[a-z_0-9]+)");
  int names = 0;
  for (std::sregex_iterator match(expression.begin(), expression.end(), name), end; match != end; ++match, ++names) {
    const auto place = known.find(match->str());
    if (place == known.end())
      found.push_back(match->str());
    else
      labels.insert(place->second.begin(), place->second.end());
  }
  if (names == 0) found.push_back("no metric in " + expression);
  const std::regex matcher(R"re(([a-z_]+)(?:=~|!~|!=|=)")re"), grouping(R"(by ?\(([^)]*)\))"), word("[a-z_]+");
  for (std::sregex_iterator match(expression.begin(), expression.end(), matcher), end; match != end; ++match)
    if (!labels.contains((*match)[1])) found.push_back((*match)[1]);
  for (std::sregex_iterator match(expression.begin(), expression.end(), grouping), end; match != end; ++match) {
    const std::string list = (*match)[1];
    for (std::sregex_iterator each(list.begin(), list.end(), word); each != end; ++each)
      if (!labels.contains(each->str())) found.push_back(each->str());
  }
  return found;
}

TEST(Dashboard, ThePlantedFaultsAreFound) {
  const auto known = labels_by_name();
  EXPECT_TRUE(problems("rate(fathom_cost_usd_total{model_name=~\"$model\"}[1m])", known).empty());
  EXPECT_EQ(problems("rate(fathom_cost_usd{model_name=\"a\"}[1m])", known).front(), "fathom_cost_usd");
  EXPECT_EQ(problems("sum by (le, key) (fathom_cost_usd_total)", known), std::vector<std::string>{"key"});
  EXPECT_EQ(problems("fathom_ledger_dropped_rows_total{model=\"a\"}", known), std::vector<std::string>{"model"});
  EXPECT_EQ(problems("fathom_time_to_first_token_seconds", known).size(), 1u) << "a histogram has only parts";
  EXPECT_EQ(problems("up", known).size(), 1u);
}

TEST(Dashboard, EveryExpressionNamesMetricsThatThereAre) {
  const auto json = parse_json(file_text(FATHOM_DEPLOY "/grafana.json"), "grafana.json");
  ASSERT_TRUE(json) << json.error().message;
  const auto known = labels_by_name();
  std::vector<Json> expressions, definitions;
  collect(*json, "expr", expressions);
  collect(*json, "definition", definitions);
  EXPECT_GT(expressions.size(), 20u);
  EXPECT_EQ(definitions.size(), 1u);
  for (const Json& each : expressions)
    EXPECT_THAT(problems(each.get<std::string>(), known), testing::IsEmpty()) << each;
  for (const Json& each : definitions) {
    EXPECT_THAT(each.get<std::string>(), HasSubstr("model_name"));
    const std::string text = each.get<std::string>();
    EXPECT_TRUE(known.contains(text.substr(13, text.find(',') - 13))) << text;  // label_values(NAME, …
  }
  // Every metric that a person would miss is shown: all but the parts of histograms and some counts of little use.
  std::string all;
  for (const Json& each : expressions) all += each.get<std::string>() + "\n";
  for (const char* name :
       {"num_requests_running", "num_requests_waiting", "time_to_first_token_seconds_bucket",
        "time_to_first_answer_token_seconds_bucket", "request_time_per_output_token_seconds_bucket",
        "e2e_request_latency_seconds_bucket", "request_queue_time_seconds_bucket", "prompt_tokens_total",
        "prompt_tokens_cached_total", "generation_tokens_total", "kv_cache_blocks", "num_preemptions_total",
        "spec_decode_num_accepted_tokens_total", "cost_usd_total", "ledger_dropped_rows_total",
        "disk_cache_errors_total", "http_requests_total", "request_success_total"})
    EXPECT_THAT(all, HasSubstr(std::string("fathom_") + name));
}

TEST(Dashboard, ImportsAsItIs) {
  const auto json = parse_json(file_text(FATHOM_DEPLOY "/grafana.json"), "grafana.json");
  ASSERT_TRUE(json) << json.error().message;
  for (const char* member : {"title", "uid", "schemaVersion", "panels", "templating", "time", "refresh"})
    EXPECT_TRUE(json->contains(member)) << member;
  EXPECT_GE((*json)["schemaVersion"], 36);
  EXPECT_TRUE((*json)["id"].is_null()) << "an id of its own would overwrite another's dashboard";
  // No source of data is written down: the one that is chosen on the page.
  std::vector<Json> sources;
  collect((*json)["panels"], "datasource", sources);
  for (const Json& source : sources) EXPECT_EQ(source["uid"], "${datasource}");
  std::set<int64_t> ids;
  std::vector<std::vector<bool>> taken(400, std::vector<bool>(24));
  for (const Json& panel : (*json)["panels"]) {
    EXPECT_TRUE(ids.insert(panel["id"].get<int64_t>()).second) << "id " << panel["id"];
    EXPECT_FALSE(panel["title"].get<std::string>().empty());
    const Json& at = panel["gridPos"];
    const auto x = at["x"].get<size_t>(), y = at["y"].get<size_t>(), w = at["w"].get<size_t>(),
               h = at["h"].get<size_t>();
    ASSERT_LE(x + w, 24u);
    for (size_t row_at = y; row_at < y + h; ++row_at)
      for (size_t column = x; column < x + w; ++column) {
        EXPECT_FALSE(taken[row_at][column]) << panel["title"] << " covers another panel";
        taken[row_at][column] = true;
      }
    if (panel["type"] == "row") continue;
    EXPECT_EQ(panel["datasource"]["type"], "prometheus");
    std::set<std::string> refs;
    for (const Json& target : panel["targets"]) EXPECT_TRUE(refs.insert(target["refId"].get<std::string>()).second);
    EXPECT_FALSE(refs.empty()) << panel["title"];
  }
}

}  // namespace
}  // namespace fathom
