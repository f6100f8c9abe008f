#include "serve/request_log.h"

#include <fmt/chrono.h>
#include <spdlog/async.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include "text/json.h"

namespace fathom {

namespace {

constexpr size_t kQueuedLines = 8192;

std::string line_text(const Json& line) { return line.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json time_now() { return fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr))); }

Json as_json(const LedgerRow& row, const std::string& peer) {
  Json line = {{"time", time_now()},
               {"level", row.status >= 500 ? "error" : "info"},
               {"endpoint", row.endpoint},
               {"status", row.status},
               {"request_id", row.request_id},
               {"peer", peer},
               {"key", row.key},
               {"total_ms", row.total_ms}};
  if (row.choices == 0) return line;
  line["model"] = row.model;
  line["prompt_tokens"] = row.usage.prompt_tokens;
  line["cached_tokens"] = row.usage.cached_tokens;
  line["completion_tokens"] = row.usage.completion_tokens;
  line["finish_reason"] = row.finish_reason;
  line["aborted"] = row.aborted;
  if (row.first_token_ms) line["first_token_ms"] = *row.first_token_ms;
  return line;
}

std::string as_text(const LedgerRow& row, const std::string& peer) {
  std::string text =
      fmt::format("{} {} {} from {}, {:.0f} ms", row.endpoint, row.status, row.request_id, peer, row.total_ms);
  if (!row.key.empty()) text += fmt::format(", key {}", row.key);
  if (row.choices == 0) return text;
  text += fmt::format(", {}: {} + {} tokens ({} cached), {}", row.model, row.usage.prompt_tokens,
                      row.usage.completion_tokens, row.usage.cached_tokens,
                      row.aborted ? "left by the client" : row.finish_reason);
  if (row.first_token_ms) text += fmt::format(", first after {:.0f} ms", *row.first_token_ms);
  return text;
}

}  // namespace

RequestLog::RequestLog(bool json) : json_(json) {
  static const auto thread = std::make_shared<spdlog::details::thread_pool>(kQueuedLines, 1);
  log_ = std::make_shared<spdlog::async_logger>("requests", std::make_shared<spdlog::sinks::stderr_color_sink_mt>(),
                                                thread, spdlog::async_overflow_policy::overrun_oldest);
  log_->set_pattern(json ? "%v" : "%H:%M:%S.%e %^%l%$ %v");
}

void RequestLog::request(const LedgerRow& row, const std::string& peer) {
  log_->log(row.status >= 500 ? spdlog::level::err : spdlog::level::info, "{}",
            json_ ? line_text(as_json(row, peer)) : as_text(row, peer));
}

void RequestLog::warn(const std::string& message) {
  log_->warn("{}", json_ ? line_text({{"time", time_now()}, {"level", "warning"}, {"message", message}}) : message);
}

}  // namespace fathom
