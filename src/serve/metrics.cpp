#include "serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

namespace fathom {

namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::Registry;
using Buckets = Histogram::BucketBoundaries;

// From a cached prompt on a small model to an hour of reasoning on a large one.
const Buckets kSeconds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                       2.5,   5,      10,    20,   40,    80,   160, 320,  640, 2560};
const Buckets kSecondsPerToken{0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075,
                               0.1,   0.15,   0.2,   0.3,  0.4,   0.5,  0.75, 1,    2.5,  5};
const Buckets kTokens{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};

// A server has some twenty routes. Past that many, names are taken together: a mistake must not cost memory without end.
constexpr size_t kMaxRoutes = 64;

// The families, and the one series of each that a model has.
struct Series {
  Registry& registry;
  Labels labels;

  Counter& counter(const char* name, const char* help, const Labels& more = {}) const {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(with(more));
  }
  Gauge& gauge(const char* name, const char* help, const Labels& more = {}) const {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(with(more));
  }
  Histogram& histogram(const char* name, const char* help, const Buckets& buckets) const {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
  }
  Labels with(const Labels& more) const {
    Labels all = labels;
    all.insert(more.begin(), more.end());
    return all;
  }
};

// Adds what a count that others keep has grown since the last sample. One that fell began anew.
void advance(Counter& counter, int64_t now, int64_t last) {
  counter.Increment(static_cast<double>(now >= last ? now - last : now));
}

void set(Gauge& gauge, int64_t value) { gauge.Set(static_cast<double>(value)); }

struct ModelSeries {
  Series in;

  Gauge& running = in.gauge("fathom_num_requests_running", "Answers under way.");
  Gauge& waiting = in.gauge("fathom_num_requests_waiting", "Answers that have not begun, or were put back.");
  Gauge& cache_usage = in.gauge("fathom_kv_cache_usage_perc", "Share of the cache's blocks that answers hold, 0 to 1.");
  Gauge& used_blocks = blocks("used");
  Gauge& idle_blocks = blocks("idle");
  Gauge& free_blocks = blocks("free");
  Counter& prompt_tokens = in.counter("fathom_prompt_tokens_total", "Tokens of prompts, read or found in the cache.");
  Counter& cached_tokens =
      in.counter("fathom_prompt_tokens_cached_total", "Tokens of prompts that were found in the cache.");
  Counter& generation_tokens = in.counter("fathom_generation_tokens_total", "Tokens of answers.");
  Counter& steps = in.counter("fathom_engine_steps_total", "Steps of the model.");
  Counter& preemptions =
      in.counter("fathom_num_preemptions_total", "Answers that were put back because the cache was full.");
  Counter& drafted = in.counter("fathom_spec_decode_num_draft_tokens_total", "Tokens that the MTP layer drafted.");
  Counter& accepted = in.counter("fathom_spec_decode_num_accepted_tokens_total", "Drafted tokens that were right.");
  Counter& loaded_blocks = in.counter("fathom_disk_cache_loaded_blocks_total", "Blocks read from the disk cache.");
  BatcherStats last{};

  Histogram& first_token =
      in.histogram("fathom_time_to_first_token_seconds", "From the request to the first token.", kSeconds);
  Histogram& first_answer = in.histogram("fathom_time_to_first_answer_token_seconds",
                                         "From the request to the first token after the reasoning.", kSeconds);
  Histogram& per_token =
      in.histogram("fathom_request_time_per_output_token_seconds",
                   "Of a request: from the first token to the end, by the tokens after it.", kSecondsPerToken);
  Histogram& latency = in.histogram("fathom_e2e_request_latency_seconds", "From the request to the end.", kSeconds);
  Histogram& queue = in.histogram("fathom_request_queue_time_seconds", "From the request to its beginning.", kSeconds);
  Histogram& request_prompt = in.histogram("fathom_request_prompt_tokens", "Tokens of a request's prompt.", kTokens);
  Histogram& request_generation =
      in.histogram("fathom_request_generation_tokens", "Tokens of a request's answers.", kTokens);
  Counter& reasoning_tokens = in.counter("fathom_reasoning_tokens_total", "Tokens of answers that were reasoning.");
  Counter& cost = in.counter("fathom_cost_usd_total", "What the requests cost, in USD.");
  // Those that every server has are there from the start: a rate needs a first value.
  Counter& stopped = success("stop");
  Counter& cut = success("length");
  Counter& aborted = success("abort");

  Gauge& blocks(const char* state) const {
    return in.gauge("fathom_kv_cache_blocks",
                    "Blocks of the cache: used by answers; idle: their prefixes may be found again; free.",
                    {{"state", state}});
  }
  Counter& success(const std::string& reason) const {
    return in.counter("fathom_request_success_total", "Requests that were answered, by how they ended.",
                      {{"finished_reason", reason}});
  }
};

void count(ModelSeries& to, const LedgerRow& row) {
  // One without an end, that the client did not leave, broke off.
  to.success(row.aborted ? "abort" : row.finish_reason.empty() ? "error" : row.finish_reason).Increment();
  to.request_prompt.Observe(static_cast<double>(row.usage.prompt_tokens));
  to.request_generation.Observe(static_cast<double>(row.usage.completion_tokens));
  to.reasoning_tokens.Increment(static_cast<double>(row.usage.reasoning_tokens));
  to.cost.Increment(row.price_usd);
}

struct DiskSeries {
  Series in;
  Gauge& blocks = in.gauge("fathom_disk_cache_blocks", "Blocks in the disk cache.");
  Gauge& bytes = in.gauge("fathom_disk_cache_bytes", "Bytes of the disk cache.");
  Gauge& queued = in.gauge("fathom_disk_cache_queued_bytes", "Bytes that wait to be written to the disk cache.");
  Counter& hits = in.counter("fathom_disk_cache_hits_total", "Blocks asked of the disk cache that were there.");
  Counter& misses = in.counter("fathom_disk_cache_misses_total", "Blocks asked of the disk cache that were not.");
  Counter& written = in.counter("fathom_disk_cache_written_blocks_total", "Blocks written to the disk cache.");
  Counter& evicted = in.counter("fathom_disk_cache_evicted_blocks_total", "Blocks dropped for newer ones.");
  Counter& dropped = in.counter("fathom_disk_cache_dropped_blocks_total", "Blocks not cached for want of room.");
  Counter& damaged = in.counter("fathom_disk_cache_damaged_blocks_total", "Blocks found damaged and dropped.");
  Counter& errors = in.counter("fathom_disk_cache_errors_total", "Failures of the disk: full, unwritable, unreadable.");
  BlockStoreStats last{};
};

struct LedgerSeries {
  Series in;
  Gauge& queued = in.gauge("fathom_ledger_queued_rows", "Rows of the ledger that wait to be written.");
  Counter& written = in.counter("fathom_ledger_written_rows_total", "Rows written to the ledger.");
  Counter& dropped = in.counter("fathom_ledger_dropped_rows_total", "Rows lost: the disk failed for too long.");
  Counter& errors = in.counter("fathom_ledger_errors_total", "Failed writes of the ledger; they are tried again.");
  LedgerStats last{};
};

// Of this process, from /proc; 0 where there is none.
double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double all = 0, resident = 0;
  file >> all >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double open_files() {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end; !error && entry != end;
       entry.increment(error))
    ++count;
  return count;
}

double seconds(double ms) { return ms / 1000; }

}  // namespace

struct Metrics::Impl {
  explicit Impl(const std::string& version) {
    process.gauge("fathom_build_info", "The program; always 1.", {{"version", version}}).Set(1);
    process.gauge("process_start_time_seconds", "When the process began, in seconds since 1970.")
        .Set(std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  }

  ModelSeries& model(const std::string& name) {
    if (const auto place = models.find(name); place != models.end()) return place->second;
    return models.try_emplace(name, ModelSeries{.in = {registry, {{"model_name", name}}}}).first->second;
  }
  DiskSeries& disk(const std::string& name) {
    if (const auto place = disks.find(name); place != disks.end()) return place->second;
    return disks.try_emplace(name, DiskSeries{.in = {registry, {{"model_name", name}}}}).first->second;
  }

  Registry registry;
  const Series process{registry, {}};
  Gauge& memory = process.gauge("process_resident_memory_bytes", "Memory of the process, mapped weights included.");
  Gauge& files = process.gauge("process_open_fds", "Open files and connections.");
  prometheus::Family<Counter>& requests = prometheus::BuildCounter()
                                              .Name("fathom_http_requests_total")
                                              .Help("HTTP requests by route and status.")
                                              .Register(registry);
  prometheus::Family<Histogram>& durations = prometheus::BuildHistogram()
                                                 .Name("fathom_http_request_duration_seconds")
                                                 .Help("HTTP requests by route, to the last byte of the answer.")
                                                 .Register(registry);

  std::mutex mutex;  // guards all below, and their samples; the series themselves are thread-safe
  std::map<std::string, ModelSeries> models;
  std::map<std::string, DiskSeries> disks;
  LedgerSeries ledger{.in = {registry, {}}};
  std::set<std::string> routes;
};

Metrics::Metrics(const std::string& version) : impl_(std::make_unique<Impl>(version)) {}
Metrics::~Metrics() = default;

void Metrics::batch_request_done(const LedgerRow& row) {
  if (row.status != 200) return;
  const std::lock_guard lock(impl_->mutex);
  count(impl_->model(row.model), row);
}

void Metrics::request_done(const LedgerRow& row) {
  if (row.status != 200 && !row.aborted) return;
  const std::lock_guard lock(impl_->mutex);
  ModelSeries& to = impl_->model(row.model);
  count(to, row);
  const auto observe = [](Histogram& histogram, const std::optional<double>& ms) {
    if (ms) histogram.Observe(seconds(*ms));
  };
  observe(to.queue, row.queue_ms);
  observe(to.first_token, row.first_token_ms);
  observe(to.first_answer, row.first_answer_ms);
  if (row.aborted) return;  // when it would have ended nobody knows
  observe(to.latency, row.total_ms);
  // Choices come side by side: each has its share of the tokens.
  const double tokens =
      static_cast<double>(row.usage.completion_tokens) / static_cast<double>(std::max(row.choices, int64_t{1}));
  if (row.first_token_ms && tokens > 1)
    to.per_token.Observe(seconds(row.total_ms - *row.first_token_ms) / (tokens - 1));
}

void Metrics::http(const std::string& route, int status, double duration_s) {
  std::string handler = route;
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->routes.contains(route)) {
      if (impl_->routes.size() < kMaxRoutes)
        impl_->routes.insert(route);
      else
        handler = "other";
    }
  }
  impl_->requests.Add({{"handler", handler}, {"status", std::to_string(status)}}).Increment();
  impl_->durations.Add({{"handler", handler}}, kSeconds).Observe(duration_s);
}

void Metrics::sample(const std::string& model, const BatcherStats& stats) {
  const std::lock_guard lock(impl_->mutex);
  ModelSeries& to = impl_->model(model);
  set(to.running, stats.running);
  set(to.waiting, stats.waiting);
  // Idle blocks are free ones that can still be found.
  const int64_t used = stats.blocks - stats.free_blocks;
  set(to.used_blocks, used);
  set(to.idle_blocks, stats.idle_blocks);
  set(to.free_blocks, stats.free_blocks - stats.idle_blocks);
  to.cache_usage.Set(stats.blocks > 0 ? static_cast<double>(used) / static_cast<double>(stats.blocks) : 0.0);
  const BatcherStats last = std::exchange(to.last, stats);
  advance(to.prompt_tokens, stats.read_tokens + stats.cached_tokens, last.read_tokens + last.cached_tokens);
  advance(to.cached_tokens, stats.cached_tokens, last.cached_tokens);
  advance(to.generation_tokens, stats.answer_tokens, last.answer_tokens);
  advance(to.steps, stats.steps, last.steps);
  advance(to.preemptions, stats.preempted, last.preempted);
  advance(to.drafted, stats.drafted, last.drafted);
  advance(to.accepted, stats.accepted, last.accepted);
  advance(to.loaded_blocks, stats.loaded_blocks, last.loaded_blocks);
}

void Metrics::sample(const std::string& model, const BlockStoreStats& stats) {
  const std::lock_guard lock(impl_->mutex);
  DiskSeries& to = impl_->disk(model);
  set(to.blocks, stats.blocks);
  set(to.bytes, stats.bytes);
  set(to.queued, stats.queued_bytes);
  const BlockStoreStats last = std::exchange(to.last, stats);
  advance(to.hits, stats.hits, last.hits);
  advance(to.misses, stats.misses, last.misses);
  advance(to.written, stats.written, last.written);
  advance(to.evicted, stats.evicted, last.evicted);
  advance(to.dropped, stats.dropped, last.dropped);
  advance(to.damaged, stats.damaged, last.damaged);
  advance(to.errors, stats.errors, last.errors);
}

void Metrics::sample(const LedgerStats& stats) {
  const std::lock_guard lock(impl_->mutex);
  LedgerSeries& to = impl_->ledger;
  set(to.queued, stats.queued);
  const LedgerStats last = std::exchange(to.last, stats);
  advance(to.written, stats.written, last.written);
  advance(to.dropped, stats.dropped, last.dropped);
  advance(to.errors, stats.errors, last.errors);
}

void Metrics::unloaded(const std::string& model) {
  sample(model, BatcherStats{});
  bool has_disk = false;
  {
    const std::lock_guard lock(impl_->mutex);
    has_disk = impl_->disks.contains(model);
  }
  if (has_disk) sample(model, BlockStoreStats{});
}

std::string Metrics::text() {
  impl_->memory.Set(resident_bytes());
  impl_->files.Set(open_files());
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace fathom
