// The service: which requests there are, who may send them, and what is done for them.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "api/api_error.h"
#include "serve/answering.h"
#include "serve/batch_runner.h"
#include "serve/batch_store.h"
#include "serve/http_server.h"
#include "serve/key_store.h"
#include "serve/ledger.h"
#include "serve/limits.h"
#include "serve/metrics.h"
#include "serve/model_host.h"
#include "serve/request_log.h"

namespace fathom {

struct ServiceSettings {
  std::vector<ModelSettings> models{};  // the first answers requests that name none
  AnsweringLimits answering{};
  int64_t max_requests = 512;                     // under way at once, waiting ones included
  std::vector<std::string> origins{};             // of web pages that may call, besides the server's own; "*": all
  bool loopback = true;                           // only names of this machine are taken for its own
  std::filesystem::path keys{};                   // of the clients; empty: everyone may ask
  std::filesystem::path ledger{};                 // empty: none
  bool ledger_text = false;                       // with what was asked and answered
  std::filesystem::path files{};                  // folder of what clients upload, and of batches; empty: neither
  int64_t files_bytes = int64_t{10'000'000'000};  // of uploads and answers together
  bool json_log = false;
  std::string version{};  // of the program, for its metrics
};

// On the network's thread, but for what it gives to its workers: reading of requests, and loading of models.
class Service final : public HttpHandler {
 public:
  // Opens the files of keys and ledger.
  static Result<std::unique_ptr<Service>> open(boost::asio::io_context& network, ServiceSettings settings);
  ~Service() override;

  // Loads what is to be there from the start. Until then the server is not ready.
  boost::asio::awaitable<Status> start();
  // Refuses new requests; returns when all are answered or the time has passed: false.
  boost::asio::awaitable<bool> drain(std::chrono::seconds most);

  std::optional<HttpAnswer> admit(HttpExchange& exchange, const HttpHeader& header) override;
  boost::asio::awaitable<void> handle(HttpExchange& exchange) override;
  HttpAnswer refusal(unsigned status, const std::string& message) override;

 private:
  Service(boost::asio::io_context& network, ServiceSettings settings);
  struct Call;
  struct Route;
  using Work = boost::asio::awaitable<void> (Service::*)(Call&);
  static const std::vector<Route>& routes();
  // With the status and the reason where there is none.
  tl::expected<const Route*, ApiError> find_route(const HttpHeader& header) const;
  tl::expected<Principal, ApiError> find_principal(const HttpHeader& header) const;
  std::optional<HttpAnswer> refuse_early(const HttpHeader& header) const;
  std::optional<ApiError> check_origin(const HttpHeader& header) const;
  void add_cors(const HttpHeader& header, HttpFields& fields) const;
  std::optional<HttpAnswer> refuse(const HttpHeader& header) const;
  HttpAnswer preflight(const HttpHeader& header) const;

  boost::asio::awaitable<void> reply(Call& call, const Json& body, unsigned status = 200);
  boost::asio::awaitable<void> fail(Call& call, const ApiError& error, int64_t retry_after_s = 1);
  // The body as JSON, and the model that it names, loaded.
  struct Asked {
    Json body;
    std::string name;  // of the model, as the client said it
    std::shared_ptr<LoadedModel> model;
  };
  boost::asio::awaitable<ApiResult<Asked>> read_body(Call& call);
  ApiContext context_of(const Asked& asked) const;
  boost::asio::awaitable<void> answer(Call& call);
  void finish(Call& call);
  Status check_keys();
  boost::asio::awaitable<void> look_after();
  boost::asio::awaitable<void> compute(Call& call);
  Json models_json() const;
  boost::asio::awaitable<void> list_models(Call& call);
  boost::asio::awaitable<void> usage(Call& call);
  boost::asio::awaitable<void> lens(Call& call);
  boost::asio::awaitable<void> upload_file(Call& call);
  boost::asio::awaitable<void> list_files(Call& call);
  boost::asio::awaitable<void> get_file(Call& call);
  boost::asio::awaitable<void> delete_file(Call& call);
  boost::asio::awaitable<void> file_content(Call& call);
  boost::asio::awaitable<void> create_batch(Call& call);
  boost::asio::awaitable<void> list_batches(Call& call);
  boost::asio::awaitable<void> get_batch(Call& call);
  boost::asio::awaitable<void> cancel_batch(Call& call);
  template <typename Function>
  boost::asio::awaitable<std::invoke_result_t<const Function&>> from_store(const Function& function);
  boost::asio::awaitable<void> reply_or_fail(Call& call, const ApiResult<Json>& body);
  boost::asio::awaitable<ApiResult<StoredBatch>> find_batch(Call& call);
  BatchDuties batch_duties();
  std::optional<Principal> principal_named(const std::string& key) const;
  boost::asio::awaitable<void> web_file(Call& call);
  boost::asio::awaitable<void> metrics(Call& call);
  boost::asio::awaitable<void> live(Call& call);
  boost::asio::awaitable<void> ready(Call& call);

  boost::asio::io_context& network_;
  const ServiceSettings settings_;
  boost::asio::thread_pool workers_{2};
  ModelHost host_;
  std::unique_ptr<KeyStore> keys_;  // null: everyone may ask
  std::unique_ptr<Ledger> ledger_;  // null: none is kept
  std::unique_ptr<Limits> limits_;
  std::unique_ptr<Metrics> metrics_;
  RequestLog log_;
  bool ready_ = false, draining_ = false;
  // Requests whose header was let in, their bodies included that still come; and those that are being served.
  const std::shared_ptr<int64_t> admitted_ = std::make_shared<int64_t>(0);
  const std::shared_ptr<int64_t> under_way_ = std::make_shared<int64_t>(0);
  // Null without a folder for files. Last: what it runs needs all of the above.
  std::unique_ptr<BatchStore> batches_;
  std::unique_ptr<BatchRunner> runner_;
};

}  // namespace fathom
