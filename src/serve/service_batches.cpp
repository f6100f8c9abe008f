// Files of clients, and batches: OpenAI's /v1/files and /v1/batches over a folder of the server's.
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <utility>
#include <vector>

#include "api/body.h"
#include "serve/form_data.h"
#include "serve/service_parts.h"
#include "serve/wake.h"

namespace fathom {

namespace {

constexpr int64_t kDay = 24 * 60 * 60;
constexpr size_t kPieceBytes = size_t{1} << 18;  // of a download
constexpr size_t kMaxFileName = 255;             // of a file, in bytes
constexpr size_t kMaxMetadata = 16, kMaxMetadataKey = 64, kMaxMetadataValue = 512;

Json file_json(const StoredFile& file) {
  return {{"id", file.id},
          {"object", "file"},
          {"bytes", file.bytes},
          {"created_at", file.created},
          {"filename", file.filename},
          {"purpose", file.purpose},
          {"status", "processed"}};
}

Json stored_json(const std::string& text) { return text.empty() ? Json() : Json::parse(text, nullptr, false); }
Json or_null(const std::optional<int64_t>& time) { return time ? Json(*time) : Json(); }

Json batch_json(const StoredBatch& b) {
  const auto ended_as = [&](BatchStatus status) { return b.status == status ? or_null(b.ended) : Json(); };
  // Its files are there when it is over, and only with lines in them.
  const auto output = [&](const std::string& id, int64_t lines) {
    return is_over(b.status) && lines > 0 ? Json(id) : Json();
  };
  return {{"id", b.id},
          {"object", "batch"},
          {"endpoint", b.endpoint},
          {"errors", stored_json(b.errors)},
          {"input_file_id", b.input_file},
          {"completion_window", "24h"},
          {"status", batch_status_name(b.status)},
          {"output_file_id", output(b.output_file, b.completed)},
          {"error_file_id", output(b.error_file, b.failed)},
          {"created_at", b.created},
          {"in_progress_at", or_null(b.started)},
          {"expires_at", b.expires},
          {"finalizing_at", b.started ? or_null(b.ended) : Json()},
          {"completed_at", ended_as(BatchStatus::kCompleted)},
          {"failed_at", ended_as(BatchStatus::kFailed)},
          {"expired_at", ended_as(BatchStatus::kExpired)},
          {"cancelling_at", or_null(b.cancelling)},
          {"cancelled_at", ended_as(BatchStatus::kCancelled)},
          {"request_counts", {{"total", b.requests}, {"completed", b.completed}, {"failed", b.failed}}},
          {"metadata", stored_json(b.metadata)}};
}

template <typename Item, typename ToJson>
Json page_json(const Page<Item>& page, const ToJson& to_json) {
  Json data = Json::array();
  for (const Item& item : page.items) data.push_back(to_json(item));
  const Json first = page.items.empty() ? Json() : Json(page.items.front().id);
  const Json last = page.items.empty() ? Json() : Json(page.items.back().id);
  return {
      {"object", "list"}, {"data", std::move(data)}, {"first_id", first}, {"last_id", last}, {"has_more", page.more}};
}

ApiResult<PageQuery> read_page_query(const HttpHeader& header, int64_t most, int64_t fallback) {
  PageQuery query{.most = fallback, .after = std::string(parameter(header, "after"))};
  if (const std::string_view text = parameter(header, "limit"); !text.empty()) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), query.most);
    if (error != std::errc() || end != text.data() + text.size() || query.most < 1 || query.most > most)
      return tl::unexpected(
          error_of(422, fmt::format("limit: found {}, expected 1 to {}", in_quotes(text), most), "limit"));
  }
  if (const std::string_view order = parameter(header, "order"); !order.empty()) {
    if (order != "asc" && order != "desc")
      return tl::unexpected(
          error_of(422, fmt::format("order: found {}, expected asc or desc", in_quotes(order)), "order"));
    query.newest_first = order == "desc";
  }
  return query;
}

struct Upload {
  std::string_view filename, purpose, content;
};

// parts must outlive what it gives.
ApiResult<Upload> read_upload(const std::vector<FormPart>& parts) {
  Upload upload;
  bool has_file = false;
  for (const FormPart& part : parts) {
    if (part.name == "file") {
      upload.filename = part.filename.empty() ? "upload.jsonl" : std::string_view(part.filename);
      upload.content = part.content;
      has_file = true;
    } else if (part.name == "purpose") {
      upload.purpose = part.content;
    } else {
      return tl::unexpected(error_of(422,
                                     fmt::format("{}: this server has no such option for files, which stay until "
                                                 "they are deleted",
                                                 in_quotes(part.name)),
                                     part.name));
    }
  }
  if (!has_file) return tl::unexpected(error_of(422, "file: missing from the form", "file"));
  if (upload.purpose != "batch")
    return tl::unexpected(error_of(
        422, fmt::format("purpose: found {}, expected batch, all that files are for here", in_quotes(upload.purpose)),
        "purpose"));
  if (upload.filename.size() > kMaxFileName)
    return tl::unexpected(error_of(
        422, fmt::format("file: its name has {} bytes, expected at most {}", upload.filename.size(), kMaxFileName),
        "file"));
  if (upload.content.empty()) return tl::unexpected(error_of(422, "file: it is empty", "file"));
  return upload;
}

// What OpenAI allows: up to 16 texts.
ApiResult<std::string> read_metadata(Body& body) {
  const Json* metadata = body.object("metadata");
  if (!metadata) return std::string();
  if (metadata->size() > kMaxMetadata)
    body.wrong("metadata", *metadata, fmt::format("at most {} members", kMaxMetadata));
  for (const auto& [name, value] : metadata->items())
    if (name.size() > kMaxMetadataKey || !value.is_string() ||
        value.get_ref<const std::string&>().size() > kMaxMetadataValue)
      body.wrong(
          "metadata." + name.substr(0, kMaxMetadataKey), value,
          fmt::format("a text of at most {} bytes under a name of at most {}", kMaxMetadataValue, kMaxMetadataKey));
  return metadata->dump(-1, ' ', false, Json::error_handler_t::replace);
}

ApiResult<StoredBatch> read_batch(const std::string& text) {
  const auto json = parse_json(text, "the body");
  if (!json) return tl::unexpected(error_of(400, json.error().message));
  FATHOM_RETURN_IF_ERROR(check_is_object(*json));
  Body body(*json);
  StoredBatch batch;
  const std::vector<std::string_view> endpoints = batch_endpoints();
  const auto needed = [&](const char* name) {
    const std::string* value = body.text(name);
    if (!value) body.fault(422, name, "missing");
    return value ? *value : std::string();
  };
  batch.input_file = needed("input_file_id");
  batch.endpoint = needed("endpoint");
  if (std::ranges::find(endpoints, batch.endpoint) == endpoints.end())
    body.wrong("endpoint", batch.endpoint, fmt::format("one of {}", fmt::join(endpoints, ", ")));
  if (const std::string window = needed("completion_window"); window != "24h")
    body.wrong("completion_window", window, "\"24h\"");
  body.refuse("output_expires_after", "files stay until they are deleted");
  FATHOM_TRY(batch.metadata, read_metadata(body));
  if (body.error()) return tl::unexpected(*body.error());
  batch.expires = now_seconds() + kDay;
  return batch;
}

}  // namespace

// A batch meets keys, ledger and metrics as its requests would have on their own, but for rates: it takes what others leave.
BatchDuties Service::batch_duties() {
  return {.may_use = [this](const std::string& key, const std::string& model) -> std::optional<ApiError> {
            const auto principal = principal_named(key);
            if (principal && principal->limits.allows(model)) return std::nullopt;
            return error_of(403, fmt::format("model: this key may not use {}", in_quotes(model)), "model");
          },
          .may_go_on = [this](const std::string& key, const std::string& model) -> std::optional<ApiError> {
            const auto principal = principal_named(key);
            if (!principal || !principal->limits.allows(model))
              return error_of(403, "the API key of this batch is not valid any more, or not for its model", "",
                              "invalid_api_key");
            return limits_->check_budget(*principal);
          },
          .done =
              [this](const StoredBatch& batch, const ModelSettings& model, const BatchLineDone& done) {
                LedgerRow row;
                row.time_ms = now_ms() - static_cast<int64_t>(1000 * done.seconds);
                row.request_id = done.request_id;
                row.key = batch.key;
                row.model = model.name;
                row.endpoint = done.url;
                row.status = done.status;
                row.finish_reason = done.finish_reason;
                row.usage = done.usage;
                row.choices = done.choices;
                row.drafted = done.drafted, row.accepted = done.accepted;
                row.total_ms = 1000 * done.seconds;
                row.price_usd = cost_usd(model.price, done.usage);
                metrics_->batch_request_done(row);
                if (ledger_) ledger_->add(std::move(row));
              },
          .warn = [this](const std::string& message) { log_.warn(message); }};
}

std::optional<Principal> Service::principal_named(const std::string& key) const {
  if (!keys_) return Principal{};
  return keys_->named(key, now_seconds());
}

// What a worker gets from the store.
template <typename Function>
asio::awaitable<std::invoke_result_t<const Function&>> Service::from_store(const Function& function) {
  if (!batches_)
    co_return tl::unexpected(error_of(
        404, "this server keeps no files, so it has no batches: start it with --files FOLDER", "", "no_files"));
  co_return co_await run_on(workers_, function);
}

asio::awaitable<void> Service::reply_or_fail(Call& call, const ApiResult<Json>& body) {
  if (body)
    co_await reply(call, *body);
  else
    co_await fail(call, body.error());
}

// --- Files

asio::awaitable<void> Service::upload_file(Call& call) {
  const auto work = [&]() -> ApiResult<Json> {
    const auto& request = call.http.request;
    const auto parts = read_form(field(request, http::field::content_type), request.body());
    if (!parts) return tl::unexpected(error_of(400, parts.error().message));
    FATHOM_TRY(const Upload upload, read_upload(*parts));
    FATHOM_TRY(const StoredFile file,
               batches_->add_file(call.principal.name, upload.filename, upload.purpose, upload.content));
    return file_json(file);
  };
  const ApiResult<Json> body = co_await from_store(work);
  co_await reply_or_fail(call, body);
}

asio::awaitable<void> Service::list_files(Call& call) {
  const auto work = [&]() -> ApiResult<Json> {
    FATHOM_TRY(const PageQuery query, read_page_query(call.http.request, 10000, 10000));
    FATHOM_TRY(const auto page, batches_->files(call.principal.name, parameter(call.http.request, "purpose"), query));
    return page_json(page, file_json);
  };
  const ApiResult<Json> body = co_await from_store(work);
  co_await reply_or_fail(call, body);
}

asio::awaitable<void> Service::get_file(Call& call) {
  const auto work = [&]() -> ApiResult<Json> {
    FATHOM_TRY(const StoredFile file, batches_->file(call.principal.name, call.id));
    return file_json(file);
  };
  const ApiResult<Json> body = co_await from_store(work);
  co_await reply_or_fail(call, body);
}

asio::awaitable<void> Service::delete_file(Call& call) {
  const auto work = [&]() -> ApiResult<Json> {
    FATHOM_RETURN_IF_ERROR(batches_->remove_file(call.principal.name, call.id));
    return Json{{"id", call.id}, {"object", "file"}, {"deleted", true}};
  };
  const ApiResult<Json> body = co_await from_store(work);
  co_await reply_or_fail(call, body);
}

// Piece by piece: a file may be larger than memory.
asio::awaitable<void> Service::file_content(Call& call) {
  std::ifstream in;
  const auto open = [&]() -> ApiResult<StoredFile> {
    FATHOM_TRY(StoredFile file, batches_->file(call.principal.name, call.id));
    in.open(batches_->path_of(file.id), std::ios::binary);
    if (!in) return tl::unexpected(error_of(500, fmt::format("{}: cannot be read", file.id)));
    return file;
  };
  const ApiResult<StoredFile> file = co_await from_store(open);
  if (!file) {
    co_await fail(call, file.error());
    co_return;
  }
  HttpAnswer head{.type = "application/octet-stream"};
  bool taken = co_await call.http.begin(std::move(head));
  const auto read = [&] {
    std::string piece(kPieceBytes, '\0');
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    piece.resize(static_cast<size_t>(in.gcount()));
    return piece;
  };
  for (bool more = true; taken && more;) {
    std::string piece = co_await run_on(workers_, read);
    more = !piece.empty();
    if (more) taken = co_await call.http.write(std::move(piece));
  }
  // One that could not be read to its end breaks the connection off, so that no one takes it for whole.
  HttpFields nothing;
  if (taken && !in.bad()) co_await call.http.end(std::move(nothing));
}

// --- Batches

asio::awaitable<void> Service::create_batch(Call& call) {
  const auto work = [&]() -> ApiResult<StoredBatch> {
    FATHOM_TRY(StoredBatch batch, read_batch(call.http.request.body()));
    batch.key = call.principal.name;
    FATHOM_RETURN_IF_ERROR(batches_->file(batch.key, batch.input_file));
    return batches_->add_batch(std::move(batch));
  };
  const ApiResult<StoredBatch> batch = co_await from_store(work);
  if (batch) runner_->start(*batch);
  const ApiResult<Json> body = batch.map(batch_json);
  co_await reply_or_fail(call, body);
}

asio::awaitable<void> Service::list_batches(Call& call) {
  const auto work = [&]() -> ApiResult<Page<StoredBatch>> {
    FATHOM_TRY(const PageQuery query, read_page_query(call.http.request, 100, 20));
    return batches_->batches(call.principal.name, query);
  };
  const ApiResult<Page<StoredBatch>> page = co_await from_store(work);
  const auto current = [&](const StoredBatch& batch) { return batch_json(runner_->current(batch)); };
  const ApiResult<Json> body = page.map([&](const auto& found) { return page_json(found, current); });
  co_await reply_or_fail(call, body);
}

asio::awaitable<ApiResult<StoredBatch>> Service::find_batch(Call& call) {
  const auto work = [&] { return batches_->batch(call.principal.name, call.id); };
  co_return co_await from_store(work);
}

asio::awaitable<void> Service::get_batch(Call& call) {
  const ApiResult<StoredBatch> batch = co_await find_batch(call);
  const ApiResult<Json> body = batch.map([&](const StoredBatch& b) { return batch_json(runner_->current(b)); });
  co_await reply_or_fail(call, body);
}

asio::awaitable<void> Service::cancel_batch(Call& call) {
  const ApiResult<StoredBatch> batch = co_await find_batch(call);
  const ApiResult<StoredBatch> cancelled = batch.and_then([&](const StoredBatch& b) { return runner_->cancel(b); });
  const ApiResult<Json> body = cancelled.map(batch_json);
  co_await reply_or_fail(call, body);
}

}  // namespace fathom
