#include "serve/service.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/string.hpp>
#include <utility>

#include "api/chat_response.h"
#include "serve/wake.h"

namespace fathom {

namespace asio = boost::asio;
namespace http = boost::beast::http;

// How a request is served: by one of the last three.
struct Service::Route {
  using Reader = ApiResult<ApiCall> (*)(const Json& body, const ApiContext& context);
  using Function = ApiResult<Json> (*)(const Json& body, const ApiContext& context);

  http::verb method;
  std::string_view path;
  ApiKind kind = ApiKind::kOpenAi;
  bool needs_key = true;
  Reader reader = nullptr;      // an answer of the model
  Function function = nullptr;  // computed from the body
  Work work = nullptr;
};

struct Service::Call {
  HttpExchange& http;
  const Route& route;
  std::string id;
};

namespace {

// Where an endpoint may be found besides its path: the vendor's and OpenAI's bases.
constexpr std::string_view kBases[] = {"/v1", "/beta/v1", "/beta", "/anthropic/v1", "/anthropic"};

std::string_view without_base(std::string_view path) {
  for (const std::string_view base : kBases)
    if (path.starts_with(base) && path.size() > base.size() && path[base.size()] == '/')
      return path.substr(base.size());
  return path;
}

std::string_view field(const HttpHeader& header, http::field name) {
  const auto value = header[name];
  return {value.data(), value.size()};
}

// "localhost" of "localhost:8000", "::1" of "[::1]:8000".
std::string_view host_of(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

bool is_this_machine(std::string_view host) {
  return host == "localhost" || host.ends_with(".localhost") || host == "::1" || host.starts_with("127.");
}

int64_t now_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Counts a request while it is under way.
class Counted {
 public:
  explicit Counted(int64_t& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  int64_t& count_;
};

}  // namespace

const std::vector<Service::Route>& Service::routes() {
  static const std::vector<Route> routes = {
      {http::verb::post, "/chat/completions", .reader = read_chat_call},
      {http::verb::get, "/models", .work = &Service::list_models},
      {http::verb::get, "/health", .needs_key = false, .work = &Service::ready},
      {http::verb::get, "/health/live", .needs_key = false, .work = &Service::live},
      {http::verb::get, "/health/ready", .needs_key = false, .work = &Service::ready},
  };
  return routes;
}

Service::Service(asio::io_context& network, ServiceSettings settings)
    : network_(network), settings_(std::move(settings)), host_(settings_.models, workers_) {}

Service::~Service() { workers_.join(); }

asio::awaitable<Status> Service::start() {
  for (size_t i = 0; i < settings_.models.size(); ++i) {
    if (!settings_.models[i].load_at_start) continue;
    const auto model = co_await host_.acquire(static_cast<int>(i));
    if (!model) co_return tl::unexpected(model.error());
  }
  ready_ = true;
  co_return Status{};
}

asio::awaitable<bool> Service::drain(std::chrono::seconds most) {
  draining_ = true;
  host_.close();
  asio::steady_timer timer(network_);
  const auto until = std::chrono::steady_clock::now() + most;
  while (under_way_ > 0 && std::chrono::steady_clock::now() < until) {
    timer.expires_after(std::chrono::milliseconds(20));
    co_await timer.async_wait(asio::use_awaitable);
  }
  co_return under_way_ == 0;
}

tl::expected<const Service::Route*, ApiError> Service::find_route(const HttpHeader& header) const {
  const std::string_view path = without_base(path_of(header));
  std::string allowed;
  for (const Route& route : routes()) {
    if (route.path != path) continue;
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

std::optional<HttpAnswer> Service::admit(const HttpHeader& header, const std::string&) {
  const auto refused = [&](const ApiError& error, ApiKind kind = ApiKind::kOpenAi) {
    HttpAnswer answer{.status = static_cast<unsigned>(error.status), .body = error_body(kind, error).dump()};
    if (error.status == 429 || error.status == 503) answer.fields.emplace_back("retry-after", "1");
    return answer;
  };
  if (const auto error = check_origin(header)) return refused(*error);
  if (header.method() == http::verb::options) return preflight(header);
  const auto route = find_route(header);
  if (!route) return refused(route.error());
  if (!(*route)->needs_key) return std::nullopt;
  if (draining_)
    return refused({503, "the server is shutting down: try another, or later", "", "shutting_down"}, (*route)->kind);
  if (under_way_ >= settings_.max_requests)
    return refused(
        {429, fmt::format("{} requests are under way, as many as may: try later", under_way_), "", "queue_full"},
        (*route)->kind);
  return std::nullopt;
}

HttpAnswer Service::refusal(unsigned status, const std::string& message) {
  return {.status = status, .body = error_body(ApiKind::kOpenAi, {static_cast<int>(status), message}).dump()};
}

asio::awaitable<void> Service::handle(HttpExchange& exchange) {
  const auto route = find_route(exchange.request);
  FATHOM_CHECK(route, "a request that was not admitted: {}", route.error().message);
  Call call{exchange, **route, random_id("req-")};
  exchange.fields.emplace_back("x-request-id", call.id);
  add_cors(exchange.request, exchange.fields);
  const Counted counted(under_way_);
  if (call.route.work)
    co_await (this->*call.route.work)(call);
  else if (call.route.reader)
    co_await answer(call);
  else
    co_await compute(call);
}

asio::awaitable<void> Service::reply(Call& call, const Json& body, unsigned status) {
  co_await call.http.send({.status = status, .body = body.dump(-1, ' ', false, Json::error_handler_t::replace)});
}

asio::awaitable<void> Service::fail(Call& call, const ApiError& error) {
  HttpAnswer answer{.status = static_cast<unsigned>(error.status),
                    .body = error_body(call.route.kind, error).dump(-1, ' ', false, Json::error_handler_t::replace)};
  if (error.status == 429 || error.status == 503) answer.fields.emplace_back("retry-after", "1");
  co_await call.http.send(std::move(answer));
}

asio::awaitable<std::optional<Service::Asked>> Service::read_body(Call& call) {
  const std::string& text = call.http.request.body();
  auto body = co_await run_on(workers_, [&] { return parse_json(text, "the body"); });
  if (!body) {
    co_await fail(call, {400, body.error().message});
    co_return std::nullopt;
  }
  Asked asked{.body = *std::move(body)};
  if (asked.body.is_object()) {
    const auto model = asked.body.find("model");
    if (model != asked.body.end() && model->is_string()) asked.name = model->get<std::string>();
  }
  const int index = host_.find(asked.name);
  if (index < 0) {
    co_await fail(call,
                  {404,
                   fmt::format("model: found {}, which this server does not have; GET /v1/models lists its models",
                               in_quotes(asked.name)),
                   "model", "model_not_found"});
    co_return std::nullopt;
  }
  if (asked.name.empty()) asked.name = settings_.models[static_cast<size_t>(index)].name;
  auto model = co_await host_.acquire(index);
  if (!model) {
    co_await fail(call, {503, model.error().message, "model", "model_not_loaded"});
    co_return std::nullopt;
  }
  asked.model = *std::move(model);
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
  if (!asked) co_return;
  if (asked->model->scheduler->full()) {  // before time is spent on reading it
    co_await fail(call, {429, "as many requests wait as may: try later", "", "queue_full"});
    co_return;
  }
  const ApiContext context = context_of(*asked);
  auto read = co_await run_on(workers_, [&] { return call.route.reader(asked->body, context); });
  if (!read) {
    co_await fail(call, read.error());
    co_return;
  }
  const AnswerOutcome outcome = co_await answer_call(call.http, *asked->model, *std::move(read), settings_.answering);
  if (!outcome.error) co_return;
  if (!outcome.begun) {
    co_await fail(call, *outcome.error);
  } else if (!outcome.aborted) {  // an event of its own, then the connection closes
    co_await call.http.write(error_event(call.route.kind, *outcome.error));
  }
}

asio::awaitable<void> Service::compute(Call& call) {
  auto asked = co_await read_body(call);
  if (!asked) co_return;
  const ApiContext context = context_of(*asked);
  const auto result = co_await run_on(workers_, [&] { return call.route.function(asked->body, context); });
  if (result)
    co_await reply(call, *result);
  else
    co_await fail(call, result.error());
}

asio::awaitable<void> Service::list_models(Call& call) {
  Json list = Json::array();
  for (const ModelSettings& model : settings_.models) {
    const auto loaded = host_.loaded(host_.find(model.name));
    const auto add = [&](const std::string& name) {
      Json entry = {{"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", "fathom"}, {"root", model.name}};
      if (loaded) entry["context_length"] = loaded->engine->context();
      entry["price"] = {{"input", model.price.input}, {"cached", model.price.cached}, {"output", model.price.output}};
      list.push_back(std::move(entry));
    };
    add(model.name);
    for (const std::string& alias : model.aliases) add(alias);
  }
  co_await reply(call, {{"object", "list"}, {"data", std::move(list)}});
}

asio::awaitable<void> Service::live(Call& call) { co_await reply(call, {{"status", "live"}}); }

asio::awaitable<void> Service::ready(Call& call) {
  const char* status = draining_ ? "draining" : ready_ ? "ready" : "loading";
  co_await reply(call, {{"status", status}}, ready_ && !draining_ ? 200 : 503);
}

}  // namespace fathom
