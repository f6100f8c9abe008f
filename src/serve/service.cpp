#include "serve/service.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/string.hpp>
#include <utility>

#include "api/identifiers.h"
#include "api/tokenize.h"
#include "net/await.h"
#include "serve/service_parts.h"
#include "serve/wake.h"
#include "serve/web_files.h"

namespace fathom {

namespace {

// Where an endpoint may be found besides its path: the vendor's and OpenAI's bases.
constexpr std::string_view kBases[] = {"/v1", "/beta/v1", "/beta", "/anthropic/v1", "/anthropic"};

// Whether the path is one of the pattern; id: what stands for "{}".
bool matches(std::string_view path, std::string_view pattern, std::string_view& id) {
  const auto gap = pattern.find("{}");
  if (gap == std::string_view::npos) return path == pattern;
  const std::string_view before = pattern.substr(0, gap), after = pattern.substr(gap + 2);
  if (path.size() <= before.size() + after.size() || !path.starts_with(before) || !path.ends_with(after)) return false;
  id = path.substr(before.size(), path.size() - before.size() - after.size());
  return id.find('/') == std::string_view::npos;
}

// "localhost" of "localhost:8000", "::1" of "[::1]:8000".
std::string_view host_of(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

// An address is one only as a whole: 127.example.com may be anyone's.
bool is_this_machine(std::string_view host) {
  boost::system::error_code error;
  const auto address = asio::ip::make_address(host, error);
  if (!error) return address.is_loopback();
  return boost::beast::iequals(host, "localhost") ||
         (host.size() > 10 && boost::beast::iequals(host.substr(host.size() - 10), ".localhost"));
}

std::string shortened(std::string_view path) {
  constexpr size_t kShown = 100;
  return in_quotes(path.substr(0, kShown));
}

std::string dumped(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }
std::string error_text(ApiKind kind, const ApiError& error) { return dumped(error_body(kind, error)); }

HttpAnswer refused(const ApiError& error, ApiKind kind = ApiKind::kOpenAi, int64_t retry_after_s = 1) {
  HttpAnswer answer{.status = static_cast<unsigned>(error.status), .body = error_text(kind, error)};
  if ((error.status == 429 || error.status == 503) && retry_after_s > 0)
    answer.fields.emplace_back("retry-after", std::to_string(retry_after_s));
  return answer;
}

// Of prompts, and of the longest answers that they allow.
int64_t most_tokens(const Engine& engine, const ApiCall& call) {
  int64_t tokens = 0;
  for (const BatchRequest& prompt : call.prompts)
    tokens += static_cast<int64_t>(prompt.generation.prompt.size()) +
              prompt.choices * Answer::limit(engine, prompt.generation);
  return tokens;
}

// Counts a request while it is under way. One that was cut off may end after the service.
class Counted {
 public:
  explicit Counted(std::shared_ptr<int64_t> count) : count_(std::move(count)) { ++*count_; }
  ~Counted() { --*count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  const std::shared_ptr<int64_t> count_;
};

// Failures that are counted elsewhere. The first is told, and while there are more the latest, once a minute.
struct Trouble {
  int64_t errors = 0;  // so far
  std::chrono::steady_clock::time_point quiet_until{};

  void counted(int64_t now, const std::string& latest, RequestLog& log) {
    if (now <= std::exchange(errors, now) || std::chrono::steady_clock::now() < quiet_until) return;
    quiet_until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    log.warn(latest);
  }
};

}  // namespace

std::string_view without_base(std::string_view path) {
  for (const std::string_view base : kBases)
    if (path.starts_with(base) && path.size() > base.size() && path[base.size()] == '/')
      return path.substr(base.size());
  return path;
}

std::string_view parameter(const HttpHeader& header, std::string_view name) {
  const std::string_view target(header.target().data(), header.target().size());
  const auto mark = target.find('?');
  std::string_view rest = mark == std::string_view::npos ? "" : target.substr(mark + 1);
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    if (pair.size() > name.size() && pair.starts_with(name) && pair[name.size()] == '=')
      return pair.substr(name.size() + 1);
  }
  return {};
}

const std::vector<Service::Route>& Service::routes() {
  using enum http::verb;
  static const std::vector<Route> routes = {
      {.method = post, .path = "/chat/completions", .reader = read_chat_call},
      {.method = post, .path = "/completions", .reader = read_completion_call},
      {.method = post, .path = "/responses", .reader = read_responses_call},
      {.method = post, .path = "/messages", .kind = ApiKind::kAnthropic, .reader = read_messages_call},
      {.method = post, .path = "/messages/count_tokens", .kind = ApiKind::kAnthropic, .function = count_tokens_json},
      {.method = post, .path = "/tokenize", .function = tokenize_json},
      {.method = post, .path = "/detokenize", .function = detokenize_json},
      {.method = post, .path = "/lens", .work = &Service::lens},
      {.method = post, .path = "/files", .work = &Service::upload_file},
      {.method = get, .path = "/files", .work = &Service::list_files},
      {.method = get, .path = "/files/{}", .work = &Service::get_file},
      {.method = delete_, .path = "/files/{}", .work = &Service::delete_file},
      {.method = get, .path = "/files/{}/content", .work = &Service::file_content},
      {.method = post, .path = "/batches", .work = &Service::create_batch},
      {.method = get, .path = "/batches", .work = &Service::list_batches},
      {.method = get, .path = "/batches/{}", .work = &Service::get_batch},
      {.method = post, .path = "/batches/{}/cancel", .work = &Service::cancel_batch},
      {.method = get, .path = "/models", .work = &Service::list_models},
      {.method = get, .path = "/usage", .work = &Service::usage},
      {.method = get, .path = "/metrics", .work = &Service::metrics},
      {.method = get, .path = "/health", .needs_key = false, .work = &Service::ready},
      {.method = get, .path = "/health/live", .needs_key = false, .work = &Service::live},
      {.method = get, .path = "/health/ready", .needs_key = false, .work = &Service::ready},
  };
  return routes;
}

Service::Service(asio::io_context& network, ServiceSettings settings)
    : network_(network), settings_(std::move(settings)), host_(settings_.models, workers_), log_(settings_.json_log) {}

Service::~Service() { workers_.join(); }

Result<std::unique_ptr<Service>> Service::open(asio::io_context& network, ServiceSettings settings) {
  std::unique_ptr<Service> service(new Service(network, std::move(settings)));
  const ServiceSettings& s = service->settings_;
  if (!s.keys.empty()) {
    FATHOM_TRY(service->keys_, KeyStore::open(s.keys, Database::Mode::kRead));
    if (service->keys_->list().empty() && !s.loopback)
      return fathom::fail("{}: has no keys, so no one could use this server: make one with 'fathom keys add'",
                          s.keys.string());
  }
  if (service->keys_) FATHOM_RETURN_IF_ERROR(service->check_keys());
  if (!s.ledger.empty()) {
    FATHOM_TRY(service->ledger_, Ledger::open({.file = s.ledger, .text = s.ledger_text}));
  }
  service->metrics_ = std::make_unique<Metrics>(s.version);
  service->limits_ = std::make_unique<Limits>([ledger = service->ledger_.get()](const std::string& key) {
    return ledger ? std::optional(ledger->spent_usd(key)) : std::nullopt;
  });
  if (!s.files.empty()) {
    FATHOM_TRY(service->batches_, BatchStore::open(s.files, s.files_bytes));
    service->runner_ =
        std::make_unique<BatchRunner>(network, *service->batches_, service->host_, service->batch_duties());
  }
  asio::co_spawn(network, service->look_after(), asio::detached);
  return service;
}

// As they are in the file now.
Status Service::check_keys() {
  FATHOM_RETURN_IF_ERROR(keys_->refresh());
  if (!settings_.ledger.empty()) return {};
  for (const KeyInfo& key : keys_->list())
    if (key.settings.limits.budget_usd)
      return fathom::fail("{}: the key '{}' has a budget, which only a ledger can count: name its file with --ledger",
                          settings_.keys.string(), key.name);
  return {};
}

// What is to be done now and then.
asio::awaitable<void> Service::look_after() {
  Trouble keys, ledger;
  std::vector<Trouble> stores(settings_.models.size());
  asio::steady_timer timer(network_);
  for (;;) {
    timer.expires_after(std::chrono::seconds(1));
    co_await timer.async_wait(kResult);
    host_.unload_idle(std::chrono::steady_clock::now());
    if (keys_)
      if (const Status status = check_keys(); !status) keys.counted(keys.errors + 1, status.error().message, log_);
    if (ledger_) {
      const LedgerStats stats = ledger_->stats();
      ledger.counted(stats.errors, stats.last_error, log_);
    }
    for (size_t i = 0; i < stores.size(); ++i) {
      const auto model = host_.loaded(static_cast<int>(i));
      if (!model || !model->store) continue;
      const BlockStoreStats stats = model->store->stats();
      stores[i].counted(stats.errors, stats.last_error, log_);
    }
  }
}

tl::expected<Principal, ApiError> Service::find_principal(const HttpHeader& header) const {
  if (!keys_) return Principal{};
  std::string_view key = field(header, http::field::authorization);
  constexpr std::string_view kBearer = "bearer ";
  if (key.size() >= kBearer.size() && boost::beast::iequals(key.substr(0, kBearer.size()), kBearer))
    key.remove_prefix(kBearer.size());
  else
    key = {header["x-api-key"].data(), header["x-api-key"].size()};
  if (key.empty())
    return tl::unexpected(
        ApiError{401, "no API key: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'", "", "invalid_api_key"});
  const auto principal = keys_->find(key, now_seconds());
  if (!principal) return tl::unexpected(api_error(principal.error()));
  return *principal;
}

asio::awaitable<Status> Service::start() {
  for (size_t i = 0; i < settings_.models.size(); ++i) {
    if (!settings_.models[i].load_at_start) continue;
    const auto model = co_await host_.acquire(static_cast<int>(i));
    if (!model) co_return tl::unexpected(model.error());
  }
  ready_ = true;
  if (runner_) co_return runner_->resume();
  co_return Status{};
}

asio::awaitable<bool> Service::drain(std::chrono::seconds most) {
  draining_ = true;
  if (runner_) runner_->stop();
  host_.close();
  asio::steady_timer timer(network_);
  const auto until = std::chrono::steady_clock::now() + most;
  while (*under_way_ > 0 && std::chrono::steady_clock::now() < until) {
    timer.expires_after(std::chrono::milliseconds(20));
    co_await timer.async_wait(asio::use_awaitable);
  }
  co_return *under_way_ == 0;
}

tl::expected<const Service::Route*, ApiError> Service::find_route(const HttpHeader& header) const {
  const std::string_view path = without_base(path_of(header));
  static const Route web{.method = http::verb::get, .path = "/", .needs_key = false, .work = &Service::web_file};
  const bool reads = header.method() == http::verb::get || header.method() == http::verb::head;
  if (reads && find_web_file(path_of(header))) return &web;
  std::string allowed;
  std::string_view id;
  for (const Route& route : routes()) {
    if (!matches(path, route.path, id)) continue;
    if (route.method == header.method() || (route.method == http::verb::get && header.method() == http::verb::head))
      return &route;
    const auto name = http::to_string(route.method);
    allowed += (allowed.empty() ? "" : ", ") + std::string(name.data(), name.size());
  }
  const auto method = header.method_string();
  if (!allowed.empty())
    return tl::unexpected(ApiError{405, fmt::format("{}: found {}, expected {}", path_of(header),
                                                    std::string_view(method.data(), method.size()), allowed)});
  return tl::unexpected(
      ApiError{404, fmt::format("{}: there is no such endpoint; docs/api.md lists them", in_quotes(path_of(header)))});
}

// Web pages of others may not use a visitor's own server: their browsers tell where a request comes from. A page can also
// have its name resolve to this machine; then the name in the request is not one of this machine.
std::optional<ApiError> Service::check_origin(const HttpHeader& header) const {
  const std::string_view host = field(header, http::field::host), origin = field(header, http::field::origin);
  if (settings_.loopback && !host.empty() && !is_this_machine(host_of(host)))
    return ApiError{403,
                    fmt::format("host: found {}, expected a name of this machine, such as localhost", in_quotes(host))};
  if (origin.empty()) return std::nullopt;
  const auto scheme = origin.find("://");
  if (scheme != std::string_view::npos && origin.substr(scheme + 3) == host) return std::nullopt;
  if (std::ranges::any_of(settings_.origins, [&](const auto& o) { return o == "*" || o == origin; }))
    return std::nullopt;
  return ApiError{403,
                  fmt::format("origin: {} is not among those that may call this server; its operator can add it to "
                              "\"origins\"",
                              in_quotes(origin))};
}

void Service::add_cors(const HttpHeader& header, HttpFields& fields) const {
  const std::string_view origin = field(header, http::field::origin);
  if (origin.empty()) return;
  fields.emplace_back("access-control-allow-origin", origin);
  fields.emplace_back("access-control-expose-headers", "x-request-id, x-fathom-cost-usd, retry-after");
  fields.emplace_back("vary", "origin");
}

HttpAnswer Service::preflight(const HttpHeader& header) const {
  HttpAnswer answer{.status = 204, .type = ""};
  answer.fields = {
      {"access-control-allow-methods", "GET, POST, DELETE, OPTIONS"},
      {"access-control-allow-headers", std::string(field(header, http::field::access_control_request_headers))},
      {"access-control-max-age", "600"}};
  add_cors(header, answer.fields);
  return answer;
}

std::optional<HttpAnswer> Service::admit(HttpExchange& exchange, const HttpHeader& header) {
  auto answer = refuse_early(header);
  if (!answer) exchange.pass = std::make_shared<Counted>(admitted_);
  if (answer && answer->status >= 400) {
    LedgerRow row;
    row.request_id = random_id("req-");
    // The endpoint is what the client says it is, and stands in logs.
    row.endpoint = shortened(path_of(header));
    row.status = static_cast<int>(answer->status);
    answer->fields.emplace_back("x-request-id", row.request_id);
    log_.request(row, exchange.peer);
    metrics_->http("other", row.status, 0);
  }
  return answer;
}

std::optional<HttpAnswer> Service::refuse_early(const HttpHeader& header) const {
  if (const auto error = check_origin(header)) return refused(*error);
  if (header.method() == http::verb::options) return preflight(header);
  auto answer = refuse(header);
  if (answer) add_cors(header, answer->fields);  // so that a page may read why
  return answer;
}

std::optional<HttpAnswer> Service::refuse(const HttpHeader& header) const {
  const auto route = find_route(header);
  if (!route) return refused(route.error());
  if (!(*route)->needs_key) return std::nullopt;
  if (const auto principal = find_principal(header); !principal) return refused(principal.error(), (*route)->kind);
  if (draining_)
    return refused({503, "the server is shutting down: try another, or later", "", "shutting_down"}, (*route)->kind);
  if (*admitted_ >= settings_.max_requests)
    return refused(
        {429, fmt::format("{} requests are under way, as many as may: try later", *admitted_), "", "queue_full"},
        (*route)->kind);
  return std::nullopt;
}

HttpAnswer Service::refusal(unsigned status, const std::string& message) {
  return {.status = status, .body = error_body(ApiKind::kOpenAi, {static_cast<int>(status), message}).dump()};
}

asio::awaitable<void> Service::handle(HttpExchange& exchange) {
  const auto route = find_route(exchange.request);
  FATHOM_CHECK(route, "a request that was not admitted: {}", route.error().message);
  Call call(exchange, **route);
  auto principal = find_principal(exchange.request);
  if (principal) call.principal = *std::move(principal);
  std::string_view id;
  matches(without_base(path_of(exchange.request)), call.route.path, id);
  call.id = id;
  call.row.time_ms = now_ms();
  call.row.request_id = random_id("req-");
  call.row.key = call.principal.name;
  call.row.endpoint = path_of(exchange.request);
  exchange.fields.emplace_back("x-request-id", call.row.request_id);
  add_cors(exchange.request, exchange.fields);
  const Counted counted(under_way_);
  if (!principal && call.route.needs_key)  // the key ended while the body came
    co_await fail(call, principal.error());
  else if (call.route.work)
    co_await (this->*call.route.work)(call);
  else if (call.route.reader)
    co_await answer(call);
  else
    co_await compute(call);
  finish(call);
}

void Service::finish(Call& call) {
  LedgerRow& row = call.row;
  row.status = static_cast<int>(call.http.status);
  row.total_ms = call.elapsed_ms();
  log_.request(row, call.http.peer);
  metrics_->http(std::string(call.route.path), row.status, row.total_ms / 1000);
  if (call.route.reader) metrics_->request_done(row);
  if (ledger_ && (call.route.reader || row.price_usd > 0 || row.status >= 400)) ledger_->add(std::move(row));
}

asio::awaitable<void> Service::reply(Call& call, const Json& body, unsigned status) {
  HttpAnswer answer = json_answer(status, dumped(body));
  co_await call.http.send(std::move(answer));
}

asio::awaitable<void> Service::fail(Call& call, const ApiError& error, int64_t retry_after_s) {
  HttpAnswer answer = refused(error, call.route.kind, retry_after_s);
  co_await call.http.send(std::move(answer));
}

asio::awaitable<ApiResult<Service::Asked>> Service::read_body(Call& call) {
  Asked asked;
  int index = -1;
  const auto read = [&]() -> std::optional<ApiError> {
    auto body = parse_json(call.http.request.body(), "the body");
    if (!body) return error_of(400, body.error().message);
    auto name = read_model(*body);
    if (!name) return name.error();
    asked.name = *std::move(name);
    index = host_.find(asked.name);
    if (index < 0)
      return error_of(404,
                      fmt::format("model: found {}, which this server does not have; GET /v1/models lists its models",
                                  in_quotes(asked.name)),
                      "model", "model_not_found");
    const std::string& found = settings_.models[static_cast<size_t>(index)].name;
    if (!call.principal.limits.allows(found))
      return error_of(403, fmt::format("model: this key may not use {}", in_quotes(found)), "model");
    asked.body = *std::move(body);
    return std::nullopt;
  };
  if (auto error = co_await run_on(workers_, read)) co_return tl::unexpected(*std::move(error));
  if (!settings_.ledger_text) std::string().swap(call.http.request.body());  // what was read is needed no more
  const ModelSettings& settings = settings_.models[static_cast<size_t>(index)];
  if (asked.name.empty()) asked.name = settings.name;
  auto model = co_await host_.acquire(index);
  if (!model) co_return tl::unexpected(error_of(503, model.error().message, "model", "model_not_loaded"));
  asked.model = *std::move(model);
  call.row.model = settings.name;
  co_return asked;
}

ApiContext Service::context_of(const Asked& asked) const {
  return {.engine = *asked.model->engine,
          .model = asked.name,
          .fingerprint = asked.model->fingerprint,
          .created = now_seconds(),
          .calls = &asked.model->calls};
}

asio::awaitable<void> Service::answer(Call& call) {
  auto asked = co_await read_body(call);
  // Before time is spent on reading what cannot be answered now.
  if (asked && asked->model->scheduler->full())
    asked = tl::unexpected(error_of(429, "as many requests wait as may: try later", "", "queue_full"));
  if (!asked) {
    co_await fail(call, asked.error());
    co_return;
  }
  const ApiContext context = context_of(*asked);
  const auto read_call = [&] {
    auto read = call.route.reader(asked->body, context);
    asked->body = nullptr;  // millions of values take a while to free
    return read;
  };
  auto read = co_await run_on(workers_, read_call);
  if (!read) {
    co_await fail(call, read.error());
    co_return;
  }
  std::optional<Limits::Slot> slot;
  if (keys_) {
    auto admitted = limits_->admit(call.principal, LimitsClock::now(), most_tokens(*asked->model->engine, *read));
    if (!admitted) {
      co_await fail(call, admitted.error().error, admitted.error().retry_after_s);
      co_return;
    }
    slot.emplace(*std::move(admitted));
    for (BatchRequest& prompt : read->prompts) prompt.client = call.principal.name;
  }
  const bool streams = read->stream;
  const double before_ms = call.elapsed_ms();
  AnsweringLimits limits = settings_.answering;
  limits.keep_text = settings_.ledger_text;
  AnswerOutcome outcome = co_await answer_call(call.http, *asked->model, *std::move(read), limits);
  const auto since_start = [&](std::optional<double> s) {
    return s ? std::optional(before_ms + 1000 * *s) : std::nullopt;
  };
  LedgerRow& row = call.row;
  row.aborted = outcome.aborted;
  row.finish_reason = outcome.finish;
  row.usage = outcome.usage;
  if (settings_.ledger_text) {
    row.request_text = std::move(call.http.request.body());
    row.answer_text = std::move(outcome.text);
  }
  row.choices = outcome.choices;
  row.drafted = outcome.drafted, row.accepted = outcome.accepted;
  row.queue_ms = 1000 * outcome.waited;
  row.first_token_ms = since_start(outcome.first_token);
  row.first_answer_ms = since_start(outcome.first_answer_token);
  row.price_usd = cost_usd(asked->model->settings.price, outcome.usage);
  if (slot) slot->settle(outcome.usage.prompt_tokens + outcome.usage.completion_tokens);
  if (!outcome.error || outcome.aborted) co_return;
  if (!outcome.begun) {
    co_await fail(call, *outcome.error);
  } else {  // an event of its own, the stream's last; or the whole answer, of which only signs of life were sent
    std::string last =
        streams ? error_event(call.route.kind, *outcome.error) : error_text(call.route.kind, *outcome.error);
    HttpFields cost = cost_fields(row.price_usd);
    call.http.closes = true;
    if (co_await call.http.write(std::move(last))) co_await call.http.end(std::move(cost));
  }
}

asio::awaitable<void> Service::compute(Call& call) {
  auto asked = co_await read_body(call);
  if (!asked) {
    co_await fail(call, asked.error());
    co_return;
  }
  const ApiContext context = context_of(*asked);
  const auto function = [&]() -> ApiResult<std::string> {
    const auto result = call.route.function(asked->body, context);
    asked->body = nullptr;
    if (!result) return tl::unexpected(result.error());
    return dumped(*result);
  };
  auto result = co_await run_on(workers_, function);
  if (!result) {
    co_await fail(call, result.error());
    co_return;
  }
  HttpAnswer answer = json_answer(200, *std::move(result));
  co_await call.http.send(std::move(answer));
}

}  // namespace fathom
