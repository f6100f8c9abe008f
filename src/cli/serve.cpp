// fathom serve: models behind the API, until it is told to end.
#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "serve/config.h"
#include "serve/http_server.h"
#include "serve/service.h"

namespace fathom {

namespace asio = boost::asio;

namespace {

struct ServeOptions {
  std::vector<std::string> of_a_model;  // names of options that were given
  EngineOptions engine;
  std::string config, address, keys, ledger, files;
  std::optional<uint16_t> port;
  CacheOptions cache;
};

// The file's options, and those of the command line in their place.
Result<ServeConfig> configured(const ServeOptions& options) {
  ServeConfig config;
  if (!options.config.empty()) {
    FATHOM_TRY(config, read_serve_config(options.config));
  }
  if (config.service.models.empty()) {
    ModelSettings& model = config.service.models.emplace_back();
    model.folder = options.engine.folder();
    model.engine = options.engine.settings();
    model.engine.cache = options.cache.tokens;
    model.aliases = {"deepseek"};  // deepseek-chat and deepseek-reasoner, as the vendor has them
    model.cache_folder = options.cache.folder;
    model.cache_bytes = options.cache.disk_bytes();
  } else if (!options.of_a_model.empty()) {
    return fail("{}: the file of --config has the models and what belongs to each: set it there",
                fmt::join(options.of_a_model, ", "));
  }
  if (!options.address.empty()) config.http.address = options.address;
  if (options.port) config.http.port = *options.port;
  if (!options.keys.empty()) config.service.keys = options.keys;
  if (!options.ledger.empty()) config.service.ledger = options.ledger;
  if (!options.files.empty()) config.service.files = options.files;
  config.service.version = FATHOM_VERSION;
  FATHOM_RETURN_IF_ERROR(check_serve_config(config));
  return config;
}

std::string url_of(const HttpServerSettings& http, uint16_t port) {
  std::string host = http.address == "0.0.0.0" || http.address == "::" ? "localhost" : http.address;
  if (host.find(':') != std::string::npos) host = fmt::format("[{}]", host);
  return fmt::format("{}://{}:{}", http.certificate.empty() ? "http" : "https", host, port);
}

asio::awaitable<void> run_server(asio::io_context& network, const ServeConfig& config, Service& service,
                                 HttpServer& server, int& code) {
  const std::string url = url_of(config.http, server.port());
  fmt::print(stderr, "fathom: loading; {}/health tells when it is ready\n", url);
  const Status started = co_await service.start();
  if (!started) {
    fmt::print(stderr, "fathom: {}\n", started.error().message);
    code = 1;
    network.stop();
    co_return;
  }
  fmt::print(stderr, "fathom: ready at {}\n", url);
}

asio::awaitable<void> end_on_signal(asio::io_context& network, const ServeConfig& config, Service& service,
                                    HttpServer& server) {
  asio::signal_set signals(network, SIGINT, SIGTERM);
  co_await signals.async_wait(asio::use_awaitable);
  fmt::print(stderr, "fathom: no more requests are taken; those under way have {} s (once more ends at once)\n",
             config.drain.count());
  server.drain();
  asio::co_spawn(
      network,
      [&]() -> asio::awaitable<void> {
        if (!co_await service.drain(config.drain)) fmt::print(stderr, "fathom: some requests were not done in time\n");
        network.stop();
      },
      asio::detached);
  co_await signals.async_wait(asio::use_awaitable);
  network.stop();
}

Result<int> run(const ServeOptions& options) {
  FATHOM_TRY(const ServeConfig config, configured(options));
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is met like a full disk
  asio::io_context network(1);
  FATHOM_TRY(const auto service, Service::open(network, config.service));
  FATHOM_TRY(const auto server, HttpServer::listen(network, config.http, *service));
  int code = 0;
  asio::co_spawn(network, run_server(network, config, *service, *server, code), asio::detached);
  asio::co_spawn(network, end_on_signal(network, config, *service, *server), asio::detached);
  network.run();
  return code;
}

}  // namespace

void add_serve(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = app.add_subcommand("serve", "Serve models over HTTP, as the hosted API does");
  command->footer(
      "The API is OpenAI's (http://localhost:8000/v1) and Anthropic's (http://localhost:8000/anthropic); docs/api.md\n"
      "lists every endpoint. Only this machine can reach it, unless --address says otherwise; then it wants keys.\n\n"
      "  fathom serve\n"
      "  fathom serve --model DIR --cache-dir cache --cache-gb 50\n"
      "  fathom keys add alice --store keys.db && fathom serve --address 0.0.0.0 --keys keys.db --ledger ledger.db\n"
      "  fathom serve --config serve.json");
  command->add_option("--config", options->config, "All options in one JSON file (docs/operations.md)")
      ->type_name("FILE");
  command
      ->add_option("--address", options->address, "Of the network to listen on; default: 127.0.0.1, this machine alone")
      ->type_name("IP");
  command->add_option("--port", options->port, "Default: 8000; 0: any that is free")->type_name("N");
  command->add_option("--keys", options->keys, "Who may ask: made by 'fathom keys'")->type_name("FILE");
  command->add_option("--ledger", options->ledger, "What was asked for, and what it cost: read by 'fathom usage'")
      ->type_name("FILE");
  command
      ->add_option("--files", options->files, "For files that clients upload and for batches; without, there are none")
      ->type_name("FOLDER");
  options->cache.add_to(*command, "four times the context");
  options->engine.add_to(*command, /*model_required=*/false);
  command->callback([options, command, &context] {
    for (const char* name : {"--model", "--context", "--numerics", "--kv", "--threads", "--reproducible", "--chunk",
                             "--cache", "--cache-dir", "--cache-gb"})
      if (command->count(name) > 0) options->of_a_model.emplace_back(name);
    context.action = [options] { return exit_code(run(*options)); };
  });
}

}  // namespace fathom
