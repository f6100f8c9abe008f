// The models of a server: loaded when they are first asked for, put away when nobody does.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/tool_call_memory.h"
#include "base/result.h"
#include "engine/block_store.h"
#include "engine/scheduler.h"
#include "serve/price.h"

namespace fathom {

struct ModelSettings {
  std::string name;                  // by which clients ask for it
  std::vector<std::string> aliases;  // other names; each name also with "-reasoner" and "-chat" after it
  std::filesystem::path folder;      // of the checkpoint
  EngineSettings engine;
  SchedulerSettings scheduler;
  std::filesystem::path cache_folder{};  // of the disk cache; empty: none
  int64_t cache_bytes = 0;               // on disk
  int64_t tool_call_bytes = ToolCallMemory::kBytes;
  bool load_at_start = true;
  std::chrono::minutes unload_after{0};  // without a request; 0: never
  Price price;
};

// A model that is loaded. Its parts are thread-safe where they say so.
struct LoadedModel {
  explicit LoadedModel(const ModelSettings& its_settings)
      : settings(its_settings), calls(its_settings.tool_call_bytes) {}
  static Result<std::shared_ptr<LoadedModel>> open(const ModelSettings& settings);

  ModelSettings settings;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<BlockStore> store;  // null without a disk cache
  std::string fingerprint;
  ToolCallMemory calls;
  std::unique_ptr<Scheduler> scheduler;  // last: ends first
};

// On the network's thread.
class ModelHost {
 public:
  // Loads on the pool. Names must be different.
  ModelHost(std::vector<ModelSettings> models, boost::asio::thread_pool& loader);
  ~ModelHost();

  // Index of a model by any of its names, an empty one meaning the first; −1: none has it.
  int find(std::string_view name) const;
  const std::vector<ModelSettings>& models() const;
  // Waits for it to be loaded. The model stays loaded at least as long as it is held.
  boost::asio::awaitable<Result<std::shared_ptr<LoadedModel>>> acquire(int index);
  // Null when it is not loaded.
  std::shared_ptr<LoadedModel> loaded(int index) const;
  // Puts away what has not been used for its time. To be called now and then.
  void unload_idle(std::chrono::steady_clock::time_point now);
  // What is under way goes on; no more is taken.
  void close();

 private:
  struct Slot;
  boost::asio::thread_pool& loader_;
  std::vector<ModelSettings> models_;
  std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace fathom
