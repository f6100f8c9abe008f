#include "serve/config.h"

#include <boost/asio/ip/address.hpp>
#include <map>
#include <set>

#include "base/file.h"
#include "checkpoint/json_fields.h"
#include "checkpoint/problems.h"

namespace fathom {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr size_t kMostBytes = size_t{1} << 20;
constexpr int64_t kMost = int64_t{1} << 40;

class Reader {
 public:
  Reader(const json& document, fs::path folder, Problems& problems)
      : document_(document), folder_(std::move(folder)), problems_(problems) {}

  ServeConfig read() {
    JsonFields f(document_, "", problems_);
    config_.http.address = f.text("address", config_.http.address);
    config_.http.port = static_cast<uint16_t>(f.integer("port", 0, 65535, config_.http.port));
    config_.http.certificate = path(f, "certificate");
    config_.http.key = path(f, "certificate_key");
    ServiceSettings& service = config_.service;
    service.origins = texts(f, "origins");
    service.keys = path(f, "keys");
    service.ledger = path(f, "ledger");
    service.ledger_text = f.boolean("ledger_text", false);
    service.files = path(f, "files");
    service.files_bytes = gigabytes(f.number("files_gb", 0, 1e9, false, 10));
    service.json_log = f.word("log", {"text", "json"}, false) == "json";
    config_.drain = seconds(f, "drain_seconds", config_.drain);
    service.answering.keep_alive = seconds(f, "keep_alive_seconds", std::chrono::seconds(10));
    if (const json* limits = f.object("limits", false)) read_limits(*limits);
    const json* models = f.find("models");
    if (models && models->is_array() && !models->empty()) {
      for (size_t i = 0; i < models->size(); ++i) read_model((*models)[i], fmt::format("models[{}].", i));
    } else if (models) {
      f.found("models", *models, "a list of at least one model");
    }
    f.refuse_others();
    return std::move(config_);
  }

 private:
  void read_limits(const json& object) {
    JsonFields f(object, "limits.", problems_);
    HttpLimits& http = config_.http.limits;
    http.header_bytes = f.integer("header_bytes", 1024, 1 << 20, http.header_bytes);
    http.body_bytes = f.integer("body_bytes", 1024, int64_t{1} << 32, http.body_bytes);
    http.connections = f.integer("connections", 1, 1 << 20, http.connections);
    http.idle = seconds(f, "idle_seconds", http.idle);
    http.header = seconds(f, "header_seconds", http.header);
    http.body = seconds(f, "body_seconds", http.body);
    http.write = seconds(f, "write_seconds", http.write);
    config_.service.max_requests = f.integer("requests", 1, 1 << 20, config_.service.max_requests);
    config_.service.answering.longest = seconds(f, "request_seconds", config_.service.answering.longest);
    f.refuse_others();
  }

  void read_model(const json& object, const std::string& prefix) {
    if (!object.is_object()) {
      problems_.add("{}: found {}, expected an object", prefix.substr(0, prefix.size() - 1), shown_json(object));
      return;
    }
    JsonFields f(object, prefix, problems_);
    ModelSettings& model = config_.service.models.emplace_back();
    model.name = f.text("name", "");
    model.folder = path(f, "folder");
    if (model.folder.empty() && !f.has("folder")) f.missing("folder", "the folder of a checkpoint");
    model.aliases = texts(f, "aliases");
    EngineSettings& engine = model.engine;
    engine.context = f.integer("context", 0, kMost, 0);
    engine.cache = f.integer("cache", 0, kMost, 0);
    engine.threads = static_cast<int>(f.integer("threads", 0, 1024, 0));
    engine.chunk = f.integer("chunk", 1, 65536, engine.chunk);
    engine.reproducible = f.boolean("reproducible", false);
    engine.numerics = f.word("numerics", {"w8a16", "w8a8"}, false) == "w8a8" ? Numerics::kW8A8 : Numerics::kW8A16;
    engine.latent_format = f.word("kv", {"bf16", "fp8"}, false) == "fp8" ? LatentFormat::kFp8 : LatentFormat::kBf16;
    SchedulerSettings& scheduler = model.scheduler;
    scheduler.max_waiting = f.integer("max_waiting", 1, 1 << 20, scheduler.max_waiting);
    scheduler.batcher.max_running = f.integer("max_running", 1, 4096, scheduler.batcher.max_running);
    scheduler.batcher.draft = f.boolean("draft", true);
    model.cache_folder = path(f, "cache_folder");
    model.cache_bytes = gigabytes(f.number("cache_gb", 0, 1e9, false, 10));
    model.tool_call_bytes = static_cast<int64_t>(
        f.number("tool_calls_mb", 0, 1e6, true, static_cast<double>(ToolCallMemory::kBytes) / 1e6) * 1e6);
    model.load_at_start = f.word("load", {"start", "demand"}, false) == "start";
    model.unload_after = std::chrono::minutes(f.integer("unload_after_minutes", 0, 1 << 20, 0));
    if (const json* price = f.object("price", false)) {
      JsonFields p(*price, prefix + "price.", problems_);
      model.price.input = p.number("input", 0, 1e6, true, model.price.input);
      model.price.cached = p.number("cached", 0, 1e6, true, model.price.cached);
      model.price.output = p.number("output", 0, 1e6, true, model.price.output);
      p.refuse_others();
    }
    f.refuse_others();
  }

  static int64_t gigabytes(double value) { return static_cast<int64_t>(value * 1e9); }

  std::chrono::seconds seconds(JsonFields& f, const char* name, std::chrono::milliseconds fallback) {
    const auto whole = std::chrono::duration_cast<std::chrono::seconds>(fallback).count();
    return std::chrono::seconds(f.integer(name, 1, 1 << 30, whole));
  }
  fs::path path(JsonFields& f, const char* name) {
    const std::string text = f.text(name, "");
    return text.empty() ? fs::path() : folder_ / text;
  }
  std::vector<std::string> texts(JsonFields& f, const char* name) {
    std::vector<std::string> list;
    const json* value = f.find(name);
    if (!value) return list;
    for (const json& entry : value->is_array() ? *value : json::array({nullptr})) {
      if (entry.is_string()) {
        list.push_back(entry.get<std::string>());
      } else {
        f.found(name, *value, "a list of texts");
        break;
      }
    }
    return list;
  }

  const json& document_;
  const fs::path folder_;
  Problems& problems_;
  ServeConfig config_;
};

}  // namespace

Result<ServeConfig> read_serve_config(const fs::path& file) {
  FATHOM_TRY(const std::string text, read_file(file, kMostBytes));
  FATHOM_TRY(const Json parsed, parse_json(text, file.string()));
  if (!parsed.is_object())
    return fail("{}: expected a JSON object of options; docs/operations.md has an example", file.string());
  Problems problems;
  const json document = parsed;
  ServeConfig config = Reader(document, file.parent_path(), problems).read();
  if (!problems.empty()) return tl::unexpected(problems.error(file.string()));
  return config;
}

Status check_serve_config(ServeConfig& config) {
  Problems problems;
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(config.http.address, error);
  if (error) {
    problems.add("address: found '{}', expected an IPv4 or IPv6 address: 127.0.0.1, or 0.0.0.0 for all networks",
                 config.http.address);
  } else {
    config.service.loopback = address.is_loopback();
    if (!address.is_loopback() && config.service.keys.empty())
      problems.add(
          "address: {} can be reached by others, who could then use the models without a key: make keys with "
          "'fathom keys add' and name their file with --keys",
          config.http.address);
  }
  if (config.http.certificate.empty() != config.http.key.empty())
    problems.add("certificate and its key: found one of them, expected both or none");
  if (config.service.models.empty())
    problems.add("models: none is given: name one with --model, or in the file of --config");
  std::map<std::string, const ModelSettings*> names;  // that a request may give, and whose they are
  std::set<fs::path> caches;
  for (ModelSettings& model : config.service.models) {
    if (model.name.empty())
      model.name = (fs::absolute(model.folder) / "").lexically_normal().parent_path().filename().string();
    const auto claim = [&](const std::string& name) {
      for (const char* form : {"", "-chat", "-reasoner"}) {
        const auto [place, fresh] = names.emplace(name + form, &model);
        if (fresh || place->second == &model) continue;
        if (place->second->name == model.name)
          problems.add("models: two have the name '{}'", model.name);
        else
          problems.add("models: '{}' and '{}' can both be asked for as '{}'", place->second->name, model.name,
                       place->first);
        return;
      }
    };
    claim(model.name);
    for (const std::string& alias : model.aliases) claim(alias);
    std::error_code ignored;
    if (!fs::is_directory(model.folder, ignored))
      problems.add("{}: is no folder of a checkpoint", model.folder.string());
    if (!model.cache_folder.empty() && !caches.insert(model.cache_folder).second)
      problems.add("models: two share the cache folder {}: each needs its own", model.cache_folder.string());
  }
  if (!problems.empty()) return tl::unexpected(problems.error("the server's options"));
  return {};
}

}  // namespace fathom
