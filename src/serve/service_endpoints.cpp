// What a server answers besides the model's own answers: lists, measures, the lens, the web app.
#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <cstdlib>
#include <utility>
#include <vector>

#include "serve/lens_call.h"
#include "serve/service_parts.h"
#include "serve/usage_report.h"
#include "serve/wake.h"
#include "serve/web_files.h"

namespace fathom {

namespace {

// Whether a list of codings, "gzip, br;q=0.5", has this one, and not with q=0 (RFC 9110).
bool accepts(std::string_view list, std::string_view coding) {
  for (const auto& [name, parameters] : http::ext_list({list.data(), list.size()})) {
    if (!boost::beast::iequals(name, coding)) continue;
    return std::ranges::none_of(parameters, [](const auto& parameter) {
      return boost::beast::iequals(parameter.first, "q") &&
             std::strtod(std::string(parameter.second).c_str(), nullptr) == 0;
    });
  }
  return false;
}

HttpAnswer web_answer(const HttpHeader& header) {
  const WebFile& file = *find_web_file(path_of(header));
  const std::string_view accepted = field(header, http::field::accept_encoding);
  HttpAnswer answer{.type = std::string(file.content_type)};
  std::string etag(file.etag);
  const auto use = [&](std::string_view name, std::string_view bytes) {
    answer.body = bytes;
    answer.fields.emplace_back("content-encoding", name);
    etag.insert(etag.size() - 1, fmt::format("-{}", name));  // before its closing quote
  };
  if (!file.brotli.empty() && accepts(accepted, "br"))
    use("br", file.brotli);
  else if (!file.gzip.empty() && accepts(accepted, "gzip"))
    use("gzip", file.gzip);
  else
    answer.body = file.bytes;
  if (field(header, http::field::if_none_match) == etag) {
    answer.status = 304;
    answer.body.clear();
  }
  answer.fields.insert(answer.fields.end(), {{"etag", etag},
                                             {"cache-control", std::string(file.cache_control)},
                                             {"vary", "accept-encoding"},
                                             {"content-security-policy", std::string(kWebContentSecurityPolicy)},
                                             {"x-content-type-options", "nosniff"},
                                             {"referrer-policy", "no-referrer"}});
  return answer;
}

Json usage_json(std::string_view by, const std::vector<UsageLine>& lines) {
  Json rows = Json::array();
  for (const UsageLine& line : lines)
    rows.push_back({{std::string(by), line.name},
                    {"requests", line.requests},
                    {"failed", line.failed},
                    {"aborted", line.aborted},
                    {"prompt_tokens", line.prompt_tokens},
                    {"cached_tokens", line.cached_tokens},
                    {"completion_tokens", line.completion_tokens},
                    {"reasoning_tokens", line.reasoning_tokens},
                    {"cost_usd", line.price_usd}});
  return {{"by", by}, {"rows", std::move(rows)}};
}

Json status_json(const char* status) { return {{"status", status}}; }

}  // namespace

Json Service::models_json() const {
  Json list = Json::array();
  for (const ModelSettings& model : settings_.models) {
    const auto loaded = host_.loaded(host_.find(model.name));
    const auto add = [&](const std::string& name) {
      Json entry = {{"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", "fathom"}, {"root", model.name}};
      if (loaded) entry["context_length"] = loaded->engine->context();
      entry["thinking"] = true;
      entry["price"] = {{"input", model.price.input}, {"cached", model.price.cached}, {"output", model.price.output}};
      list.push_back(std::move(entry));
    };
    add(model.name);
    for (const std::string& alias : model.aliases) {
      add(alias + "-chat");
      add(alias + "-reasoner");
    }
  }
  return {{"object", "list"}, {"data", std::move(list)}};
}

asio::awaitable<void> Service::list_models(Call& call) { co_await reply(call, models_json()); }

asio::awaitable<void> Service::lens(Call& call) {
  auto asked = co_await read_body(call);
  if (!asked) {
    co_await fail(call, asked.error());
    co_return;
  }
  const ApiContext context = context_of(*asked);
  const auto read_call = [&] {
    auto read = read_lens_call(asked->body, context);
    asked->body = nullptr;
    return read;
  };
  auto read = co_await run_on(workers_, read_call);
  if (!read) {
    co_await fail(call, read.error());
    co_return;
  }
  const auto tokens = static_cast<int64_t>(read->tokens.size());
  std::optional<Limits::Slot> slot;
  if (keys_) {
    auto admitted = limits_->admit(call.principal, LimitsClock::now(), tokens);
    if (!admitted) {
      co_await fail(call, admitted.error().error, admitted.error().retry_after_s);
      co_return;
    }
    slot.emplace(*std::move(admitted));
    read->client = call.principal.name;
  }
  auto text = co_await answer_lens(*asked->model, *std::move(read), workers_);
  if (!text) {
    co_await fail(call, text.error());
    co_return;
  }
  call.row.usage.prompt_tokens = tokens;
  call.row.price_usd = cost_usd(asked->model->settings.price, call.row.usage);
  HttpAnswer answer = json_answer(200, *std::move(text));
  co_await call.http.send(std::move(answer));
}

// A key sees what it used itself.
asio::awaitable<void> Service::usage(Call& call) {
  const std::string_view by = parameter(call.http.request, "by");
  const ApiError no_ledger = error_of(404, "this server keeps no ledger: start it with --ledger FILE", "", "no_ledger");
  const ApiError wrong_by = error_of(422, fmt::format("by: found {}, expected key, day or model", in_quotes(by)), "by");
  if (!ledger_) {
    co_await fail(call, no_ledger);
    co_return;
  }
  if (by != "key" && by != "day" && by != "model") {
    co_await fail(call, wrong_by);
    co_return;
  }
  UsageQuery query;
  query.by = by == "key" ? UsageBy::kKey : by == "day" ? UsageBy::kDay : UsageBy::kModel;
  if (keys_) query.key = call.principal.name;
  const auto read = [&] { return usage_report(settings_.ledger, query); };
  const auto lines = co_await run_on(workers_, read);
  if (!lines) {
    const ApiError error = error_of(500, lines.error().message);
    co_await fail(call, error);
    co_return;
  }
  const Json body = usage_json(by, *lines);
  co_await reply(call, body);
}

asio::awaitable<void> Service::web_file(Call& call) {
  HttpAnswer answer = web_answer(call.http.request);
  co_await call.http.send(std::move(answer));
}

asio::awaitable<void> Service::metrics(Call& call) {
  for (size_t i = 0; i < settings_.models.size(); ++i) {
    const std::string& name = settings_.models[i].name;
    const auto model = host_.loaded(static_cast<int>(i));
    if (!model) {
      metrics_->unloaded(name);
      continue;
    }
    metrics_->sample(name, model->scheduler->stats());
    if (model->store) metrics_->sample(name, model->store->stats());
  }
  if (ledger_) metrics_->sample(ledger_->stats());
  HttpAnswer answer = json_answer(200, metrics_->text());
  answer.type = "text/plain; version=0.0.4; charset=utf-8";
  co_await call.http.send(std::move(answer));
}

asio::awaitable<void> Service::live(Call& call) {
  const Json body = status_json("live");
  co_await reply(call, body);
}

asio::awaitable<void> Service::ready(Call& call) {
  const char* status = draining_ ? "draining" : ready_ ? "ready" : "loading";
  const Json body = status_json(status);
  co_await reply(call, body, ready_ && !draining_ ? 200 : 503);
}

}  // namespace fathom
