#include "serve/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/support.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class ServeConfigTest : public testing::Test {
 protected:
  Result<ServeConfig> read(const std::string& text) {
    test::write_text(folder_ / "serve.json", text);
    return read_serve_config(folder_ / "serve.json");
  }
  std::string problems(const std::string& text) {
    const auto config = read(text);
    return config ? "it is read" : config.error().message;
  }
  static ServeConfig good() {
    ServeConfig config;
    config.service.models.resize(1);
    config.service.models[0].folder = FATHOM_MODELS "/sample";
    return config;
  }
  static std::string checked(ServeConfig config) {
    const Status status = check_serve_config(config);
    return status ? "it is good" : status.error().message;
  }
  const TempDir folder_;
};

TEST_F(ServeConfigTest, EveryOption) {
  const auto config = read(R"({
    "address": "::1", "port": 81, "certificate": "a.crt", "certificate_key": "/b.key", "origins": ["https://a", "*"],
    "keys": "k.db", "ledger": "l.db", "ledger_text": true, "files": "f", "files_gb": 3,
    "log": "json", "drain_seconds": 7, "keep_alive_seconds": 8,
    "limits": {"header_bytes": 2001, "body_bytes": 2002, "connections": 3, "idle_seconds": 4, "header_seconds": 5,
               "body_seconds": 6, "write_seconds": 7, "requests": 8, "request_seconds": 9},
    "models": [{"name": "m", "folder": "f", "aliases": ["x", "y"], "context": 10, "cache": 11, "threads": 12, "chunk": 13,
                "reproducible": true, "numerics": "w8a8", "kv": "fp8", "max_waiting": 14, "max_running": 15, "draft": false,
                "cache_folder": "c", "cache_gb": 1.5, "tool_calls_mb": 2.5, "load": "demand", "unload_after_minutes": 16,
                "price": {"input": 1, "cached": 2, "output": 3}},
               {"folder": "/g"}]})");
  ASSERT_TRUE(config) << config.error().message;
  const HttpServerSettings& http = config->http;
  EXPECT_EQ(http.address, "::1");
  EXPECT_EQ(http.port, 81);
  EXPECT_EQ(http.certificate, folder_ / "a.crt") << "relative to the file's folder";
  EXPECT_EQ(http.key, "/b.key");
  EXPECT_EQ(http.limits.header_bytes, 2001);
  EXPECT_EQ(http.limits.body_bytes, 2002);
  EXPECT_EQ(http.limits.connections, 3);
  EXPECT_EQ(http.limits.idle, 4s);
  EXPECT_EQ(http.limits.header, 5s);
  EXPECT_EQ(http.limits.body, 6s);
  EXPECT_EQ(http.limits.write, 7s);
  const ServiceSettings& service = config->service;
  EXPECT_EQ(service.max_requests, 8);
  EXPECT_EQ(service.answering.longest, 9s);
  EXPECT_EQ(service.answering.keep_alive, 8s);
  EXPECT_EQ(config->drain, 7s);
  EXPECT_THAT(service.origins, ElementsAre("https://a", "*"));
  EXPECT_EQ(service.keys, folder_ / "k.db");
  EXPECT_EQ(service.ledger, folder_ / "l.db");
  EXPECT_TRUE(service.ledger_text);
  EXPECT_EQ(service.files, folder_ / "f");
  EXPECT_EQ(service.files_bytes, 3'000'000'000);
  EXPECT_TRUE(service.json_log);
  ASSERT_EQ(service.models.size(), 2u);
  const ModelSettings& model = service.models[0];
  EXPECT_EQ(model.name, "m");
  EXPECT_EQ(model.folder, folder_ / "f");
  EXPECT_THAT(model.aliases, ElementsAre("x", "y"));
  EXPECT_EQ(model.engine.context, 10);
  EXPECT_EQ(model.engine.cache, 11);
  EXPECT_EQ(model.engine.threads, 12);
  EXPECT_EQ(model.engine.chunk, 13);
  EXPECT_TRUE(model.engine.reproducible);
  EXPECT_EQ(model.engine.numerics, Numerics::kW8A8);
  EXPECT_EQ(model.engine.latent_format, LatentFormat::kFp8);
  EXPECT_EQ(model.scheduler.max_waiting, 14);
  EXPECT_EQ(model.scheduler.batcher.max_running, 15);
  EXPECT_FALSE(model.scheduler.batcher.draft);
  EXPECT_EQ(model.cache_folder, folder_ / "c");
  EXPECT_EQ(model.cache_bytes, 1'500'000'000);
  EXPECT_EQ(model.tool_call_bytes, 2'500'000);
  EXPECT_FALSE(model.load_at_start);
  EXPECT_EQ(model.unload_after, 16min);
  EXPECT_EQ(model.price.input, 1);
  EXPECT_EQ(model.price.cached, 2);
  EXPECT_EQ(model.price.output, 3);
  EXPECT_EQ(service.models[1].folder, "/g");
  EXPECT_TRUE(service.models[1].load_at_start);
}

TEST_F(ServeConfigTest, WithoutOptionsTheDefaultsHold) {
  const auto config = read("{}");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->http.port, 8000);
  EXPECT_EQ(config->http.address, "127.0.0.1");
  EXPECT_EQ(config->http.limits.header, HttpLimits{}.header);
  EXPECT_EQ(config->service.answering.keep_alive, AnsweringLimits{}.keep_alive);
  EXPECT_TRUE(config->service.keys.empty());
}

TEST_F(ServeConfigTest, TellsAllProblemsAtOnce) {
  EXPECT_THAT(
      problems(R"({"port": 65536, "prot": 1, "origins": "x", "log": "xml", "drain_seconds": 0, "ledger_text": 1,
                           "limits": {"requests": 0, "request": 1},
                           "models": [{"threads": -1, "cache_gb": 0, "size": 1, "price": {"input": -1, "out": 1}}, 3]})"),
      AllOf(HasSubstr("serve.json"), HasSubstr("port: found 65536"), HasSubstr("prot"), HasSubstr("origins: found"),
            HasSubstr("log: found"), HasSubstr("drain_seconds: found 0"), HasSubstr("ledger_text: found 1"),
            HasSubstr("limits.requests: found 0"), HasSubstr("limits.\"request\""),
            HasSubstr("models[0].threads: found -1"), HasSubstr("models[0].cache_gb: found 0")));
  EXPECT_THAT(problems(R"({"models": [{"size": 1, "price": {"input": -1, "out": 1}}, 3]})"),
              AllOf(HasSubstr("models[0].folder"), HasSubstr("models[0].\"size\""),
                    HasSubstr("models[0].price.input: found -1"), HasSubstr("models[0].price.\"out\""),
                    HasSubstr("models[1]: found 3")));
  EXPECT_THAT(problems(R"({"models": []})"), HasSubstr("models: found []"));
  EXPECT_THAT(problems(R"({"origins": [1]})"), HasSubstr("origins: found [1]"));
}

TEST_F(ServeConfigTest, OtherFilesAreRefused) {
  EXPECT_THAT(problems("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(problems("{\"port\": 1"), HasSubstr("serve.json"));
  EXPECT_THAT(problems(std::string(100'000, '[')), HasSubstr("serve.json"));
  EXPECT_THAT(problems("\xff"), HasSubstr("serve.json"));
  EXPECT_THAT(problems(std::string(3 << 20, ' ')), HasSubstr("serve.json"));
  EXPECT_FALSE(read_serve_config(folder_ / "missing.json"));
}

TEST_F(ServeConfigTest, OthersMayAskOnlyWithKeys) {
  ServeConfig config = good();
  EXPECT_EQ(checked(config), "it is good");
  for (const char* address : {"0.0.0.0", "::", "10.1.2.3"}) {
    config.http.address = address;
    config.service.keys.clear();
    EXPECT_THAT(checked(config), HasSubstr("without a key")) << address;
    config.service.keys = "keys.db";
    EXPECT_EQ(checked(config), "it is good") << address;
  }
  ASSERT_TRUE(check_serve_config(config));
  EXPECT_FALSE(config.service.loopback);
  config.http.address = "::1";
  ASSERT_TRUE(check_serve_config(config));
  EXPECT_TRUE(config.service.loopback);
  config.http.address = "localhost";
  EXPECT_THAT(checked(config), HasSubstr("expected an IPv4 or IPv6 address"));
}

TEST_F(ServeConfigTest, WhatDoesNotGoTogether) {
  ServeConfig config = good();
  config.http.certificate = "a.crt";
  config.service.models.push_back(config.service.models[0]);  // the same folder, and so the same name
  config.service.models[0].cache_folder = config.service.models[1].cache_folder = "c";
  config.service.models[1].aliases = {"sample", "own"};
  config.service.models.emplace_back().folder = folder_ / "none";
  EXPECT_THAT(checked(config), AllOf(HasSubstr("certificate and its key"), HasSubstr("two have the name 'sample'"),
                                     HasSubstr("none: is no folder"), HasSubstr("share the cache folder c")));
  config.service.models.clear();
  EXPECT_THAT(checked(config), HasSubstr("models: none is given"));
}

// A request may put -chat or -reasoner behind a name, and then means the model of that name.
TEST_F(ServeConfigTest, EachNameIsOneModels) {
  const auto named = [&](const std::string& first, const std::string& second, std::vector<std::string> aliases) {
    ServeConfig config = good();
    config.service.models.push_back(config.service.models[0]);
    config.service.models[0].name = first, config.service.models[1].name = second;
    config.service.models[1].aliases = std::move(aliases);
    return checked(config);
  };
  EXPECT_EQ(named("a", "b", {"c", "b-chat", "b"}), "it is good");
  EXPECT_THAT(named("a", "a-chat", {}), HasSubstr("'a' and 'a-chat' can both be asked for as 'a-chat'"));
  EXPECT_THAT(named("a-reasoner", "a", {}), HasSubstr("'a-reasoner' and 'a' can both be asked for as 'a-reasoner'"));
  EXPECT_THAT(named("a", "b", {"a"}), HasSubstr("'a' and 'b' can both be asked for as 'a'"));
}

TEST_F(ServeConfigTest, AModelIsNamedAfterItsFolder) {
  for (const char* folder : {"/sample", "/sample/", "/sample/.", "/nano/../sample"}) {
    ServeConfig config = good();
    config.service.models[0].folder = std::string(FATHOM_MODELS) + folder;
    ASSERT_TRUE(check_serve_config(config));
    EXPECT_EQ(config.service.models[0].name, "sample") << folder;
  }
}

}  // namespace
}  // namespace fathom
