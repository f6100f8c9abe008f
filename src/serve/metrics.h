// What Prometheus reads from /metrics. The names are vLLM's, with "fathom_" in place of "vllm:", so that dashboards and habits
// carry over; those of the process are Prometheus' own. deploy/grafana.json shows them.
#pragma once

#include <memory>
#include <string>

#include "engine/batcher.h"
#include "engine/block_store.h"
#include "serve/ledger.h"

namespace fathom {

// Thread-safe. How many series there are does not depend on what clients send: models and routes are the server's own names.
class Metrics {
 public:
  explicit Metrics(const std::string& version);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // A request for an answer is over. Only one that was answered (status 200) counts; of an aborted one, what came until then.
  void request_done(const LedgerRow& row);
  // The same of a batch's: counted, but not timed, as no one waits for it.
  void batch_request_done(const LedgerRow& row);
  // Any HTTP request is over. route: the pattern that it matched, "/v1/models"; "other" when it matched none.
  void http(const std::string& route, int status, double seconds);
  // The state of a model's batcher and disk cache, and of the ledger: what they count since they began. To be called before `text`.
  // A model that was loaded anew begins at 0 again, and its counts go on from where they were.
  void sample(const std::string& model, const BatcherStats& stats);
  void sample(const std::string& model, const BlockStoreStats& stats);
  void sample(const LedgerStats& stats);
  // Its gauges are 0 until it is loaded again.
  void unloaded(const std::string& model);

  // All of it, in Prometheus' text format (text/plain; version=0.0.4).
  std::string text();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
