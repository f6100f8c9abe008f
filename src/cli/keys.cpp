// fathom keys: the API keys of a server.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/quote.h"
#include "base/text_lines.h"
#include "cli/command.h"
#include "cli/dates.h"
#include "serve/key_store.h"
#include "text/json.h"

namespace fathom {

namespace {

// Settings as they are written: empty means as it is, "none" means no limit.
struct KeysOptions {
  std::string store, name;
  std::string requests, tokens, concurrent, budget, expires;
  std::vector<std::string> models;
  bool json = false;
};

template <typename T>
void read_number(const std::string& text, const char* option, const char* expected, std::optional<T>& value,
                 std::string& problems) {
  if (text.empty()) return;
  if (text == "none") return value.reset();
  T number{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc() && stop == end)
    value = number;
  else
    problems += fmt::format("\n  {}: {}; expected {}, or none", option, in_quotes(text), expected);
}

// Whether the numbers make sense is for the store to say.
Status read_settings(const KeysOptions& options, KeySettings& settings) {
  std::string problems;
  KeyLimits& limits = settings.limits;
  const char* whole = "a whole number from 1 on";
  read_number(options.requests, "--requests-per-minute", whole, limits.requests_per_minute, problems);
  read_number(options.tokens, "--tokens-per-minute", whole, limits.tokens_per_minute, problems);
  read_number(options.concurrent, "--concurrent", whole, limits.concurrent, problems);
  read_number(options.budget, "--budget", "an amount in USD", limits.budget_usd, problems);
  if (options.expires == "none") {
    settings.expires.reset();
  } else if (!options.expires.empty()) {
    if (const auto day = day_start(options.expires))
      settings.expires = *day + kDaySeconds;
    else
      problems += fmt::format("\n  --expires: {}, or none", day.error().message);
  }
  if (options.models == std::vector<std::string>{"none"})
    limits.models.clear();
  else if (!options.models.empty())
    limits.models = options.models;
  if (problems.empty()) return {};
  return fail("options of the key:{}", problems);
}

std::string state_of(const KeyInfo& key) {
  if (key.revoked) return "revoked";
  return key.settings.expires && now_seconds() >= *key.settings.expires ? "expired" : "valid";
}

Json key_json(const KeyInfo& key) {
  const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(); };
  const KeyLimits& limits = key.settings.limits;
  return {{"name", key.name},
          {"state", state_of(key)},
          {"created", key.created},
          {"expires", or_null(key.settings.expires)},
          {"revoked", or_null(key.revoked)},
          {"requests_per_minute", or_null(limits.requests_per_minute)},
          {"tokens_per_minute", or_null(limits.tokens_per_minute)},
          {"concurrent", or_null(limits.concurrent)},
          {"budget_usd", or_null(limits.budget_usd)},
          {"models", limits.models.empty() ? Json() : Json(limits.models)}};
}

std::string table(const std::vector<KeyInfo>& keys) {
  if (keys.empty()) return "no keys; `fathom keys add NAME` makes one\n";
  size_t width = 4;
  for (const KeyInfo& key : keys) width = std::max(width, key.name.size());
  const auto or_dash = [](const auto& value) { return value ? fmt::format("{}", *value) : "-"; };
  const auto date = [](const std::optional<int64_t>& time) { return time ? time_text(*time) : "-"; };
  std::string out;
  append_line(out, "{:<{}}  {:<7}  {:<16}  {:<16}  {:>9}  {:>11}  {:>7}  {:>10}  {}", "name", width, "state", "created",
              "expires", "requ./min", "tokens/min", "at once", "budget USD", "models");
  for (const KeyInfo& key : keys) {
    const KeyLimits& limits = key.settings.limits;
    std::string models;
    for (const std::string& model : limits.models) models += (models.empty() ? "" : ", ") + model;
    append_line(out, "{:<{}}  {:<7}  {:<16}  {:<16}  {:>9}  {:>11}  {:>7}  {:>10}  {}", key.name, width, state_of(key),
                time_text(key.created), date(key.settings.expires), or_dash(limits.requests_per_minute),
                or_dash(limits.tokens_per_minute), or_dash(limits.concurrent), or_dash(limits.budget_usd),
                models.empty() ? "all" : models);
  }
  return out;
}

void print(const Json& json) { fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace)); }

// The key of that name as it is now.
Result<int> show(const KeyStore& store, const KeysOptions& options, const std::string& done) {
  for (const KeyInfo& key : store.list())
    if (key.name == options.name) {
      if (options.json)
        print(key_json(key));
      else
        fmt::print("{}\n{}", done, table({key}));
    }
  return 0;
}

Result<int> add(const KeysOptions& options) {
  KeySettings settings;
  FATHOM_RETURN_IF_ERROR(read_settings(options, settings));
  FATHOM_TRY(const auto store, KeyStore::open(options.store, Database::Mode::kCreate));
  FATHOM_TRY(const std::string key, store->add(options.name, settings, now_seconds()));
  if (options.json) {
    Json json;
    for (const KeyInfo& each : store->list())
      if (each.name == options.name) json = key_json(each);
    json["key"] = key;
    print(json);
    return 0;
  }
  fmt::print("{}\n", key);
  fmt::print(stderr, "fathom: the key of {}. It is shown this once and kept nowhere; {} has its hash.\n", options.name,
             options.store);
  return 0;
}

Result<int> list(const KeysOptions& options) {
  FATHOM_TRY(const auto store, KeyStore::open(options.store, Database::Mode::kRead));
  if (!options.json) {
    fmt::print("{}", table(store->list()));
    return 0;
  }
  Json json = Json::array();
  for (const KeyInfo& key : store->list()) json.push_back(key_json(key));
  print(json);
  return 0;
}

Result<int> revoke(const KeysOptions& options) {
  FATHOM_TRY(const auto store, KeyStore::open(options.store, Database::Mode::kWrite));
  FATHOM_RETURN_IF_ERROR(store->revoke(options.name, now_seconds()));
  return show(*store, options, "revoked; a running server learns it within seconds");
}

Result<int> set(const KeysOptions& options) {
  KeySettings scratch;
  FATHOM_RETURN_IF_ERROR(read_settings(options, scratch));
  FATHOM_TRY(const auto store, KeyStore::open(options.store, Database::Mode::kWrite));
  FATHOM_RETURN_IF_ERROR(
      store->change(options.name, [&](KeySettings& settings) { static_cast<void>(read_settings(options, settings)); }));
  return show(*store, options, "changed; a running server learns it within seconds");
}

void add_limits(CLI::App& command, KeysOptions& options) {
  command.add_option("--requests-per-minute", options.requests, "Requests a minute, at most")->type_name("N|none");
  command.add_option("--tokens-per-minute", options.tokens, "Tokens of prompts and answers a minute, at most")
      ->type_name("N|none");
  command.add_option("--concurrent", options.concurrent, "Requests under way at once, at most")->type_name("N|none");
  command.add_option("--budget", options.budget, "What all its requests ever may cost, like a prepaid balance")
      ->type_name("USD|none");
  command.add_option("--expires", options.expires, "Valid to the end of this day (UTC)")->type_name("DATE|none");
  command.add_option("--model", options.models, "May use this model only; may be given several times")
      ->type_name("NAME|none");
}

}  // namespace

void add_keys(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<KeysOptions>();
  CLI::App* command = app.add_subcommand("keys", "The API keys of a server: add, list, revoke, set");
  command->require_subcommand(1);
  command->footer(
      "The file holds hashes: a key is shown once, when it is made. A running server follows within seconds.\n\n"
      "  fathom keys add alice --store keys.db --requests-per-minute 60 --budget 20\n"
      "  fathom keys set alice --store keys.db --budget 40 --concurrent none\n"
      "  fathom keys revoke alice --store keys.db");
  const auto add_command = [&](const char* name, const char* description, bool named, bool limits,
                               Result<int> (*action)(const KeysOptions&)) {
    CLI::App* sub = command->add_subcommand(name, description);
    if (named) sub->add_option("name", options->name, "Of the key: whose it is, or what for")->required();
    sub->add_option("--store", options->store, "The file with the keys")->required()->type_name("FILE");
    if (limits) add_limits(*sub, *options);
    sub->add_flag("--json", options->json, "Print JSON");
    sub->callback(
        [options, action, &context] { context.action = [options, action] { return exit_code(action(*options)); }; });
  };
  add_command("add", "Make a key, and show it: the only time", true, true, add);
  add_command("list", "All keys and their limits", false, false, list);
  add_command("revoke", "End a key, for good", true, false, revoke);
  add_command("set", "Change limits of a key; what is not given stays, \"none\" lifts a limit", true, true, set);
}

}  // namespace fathom
