// Runs the batches of a store, behind all requests that someone waits for.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/batch_file.h"
#include "serve/batch_store.h"
#include "serve/model_host.h"

namespace fathom {

// How a batch meets the rest of the server. Called by the runner's threads.
struct BatchDuties {
  // Whether a key may use that model; and whether it may go on now, asked before each request.
  std::function<std::optional<ApiError>(const std::string&key, const std::string&model)> may_use, may_go_on;
  // A request of a batch is done.
  std::function<void(const StoredBatch& batch, const ModelSettings& model, const BatchLineDone& done)> done;
  // Something for the operator's eyes.
  std::function<void(const std::string& message)> warn;
};

// Two batches at a time, one of each key before a second of any; each with as many requests as half of what the model answers at
// once, of a priority below all others. What is done is on disk line by line: after the server was ended, in whatever way, a
// batch goes on where it was. On the network's thread.
class BatchRunner {
 public:
  // All must outlive it.
  BatchRunner(boost::asio::io_context& network, BatchStore& store, ModelHost& host, BatchDuties duties);
  // Ends what runs; a batch that is not over is one for the next start.
  ~BatchRunner();

  // Takes up what a server before left unfinished.
  Status resume();
  void start(StoredBatch batch);
  // Of one that is not over: it ends with what is done by then.
  ApiResult<StoredBatch> cancel(StoredBatch batch);
  // As it is now.
  StoredBatch current(StoredBatch batch) const;
  // No batch goes on, as before the server's end.
  void stop();

 private:
  struct Job;
  void begin_next();
  void begin(const std::shared_ptr<Job>& job);
  boost::asio::awaitable<void> run(const std::shared_ptr<Job>& job);
  boost::asio::awaitable<Status> process(Job& job);
  Status validate(Job& job);
  Status answer(Job& job, LoadedModel& model);
  Status end_as_failed(Job& job, const Error& error, std::string_view code);
  std::shared_ptr<Job> find(const std::string& id) const;

  boost::asio::io_context& network_;
  BatchStore& store_;
  ModelHost& host_;
  const BatchDuties duties_;
  std::list<std::shared_ptr<Job>> jobs_;  // in their order; those that run among them
  bool stopped_ = false;
  boost::asio::thread_pool pool_;
};

}  // namespace fathom
