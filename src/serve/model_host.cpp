#include "serve/model_host.h"

#include <algorithm>
#include <utility>

#include "api/identifiers.h"
#include "engine/identity.h"
#include "serve/wake.h"

namespace fathom {

namespace asio = boost::asio;

namespace {
// Room for so many texts of full length, where the settings do not say. Memory is taken when it is first used.
constexpr int64_t kContexts = 4;
}  // namespace

Result<std::shared_ptr<LoadedModel>> LoadedModel::open(const ModelSettings& settings) {
  auto model = std::make_shared<LoadedModel>(settings);
  EngineSettings engine = settings.engine;
  if (engine.cache == 0) {
    FATHOM_TRY(const ModelConfig config, load_config(settings.folder / "config.json"));
    engine.cache = kContexts * (engine.context > 0 ? engine.context : config.max_position_embeddings);
  }
  FATHOM_TRY(model->engine, Engine::open(settings.folder, engine));
  SchedulerSettings scheduler = settings.scheduler;
  if (!settings.cache_folder.empty()) {
    const auto block = static_cast<int64_t>(model->engine->kv_pool().block_bytes());
    // Some steps' worth of blocks may wait for the disk.
    FATHOM_TRY(model->store, BlockStore::open({settings.cache_folder, settings.cache_bytes, 64 * block}));
    FATHOM_TRY(scheduler.batcher.identity, cache_identity(*model->engine));
    scheduler.batcher.store = model->store.get();
  }
  model->fingerprint = system_fingerprint(*model->engine);
  model->scheduler = std::make_unique<Scheduler>(*model->engine, scheduler);
  return model;
}

struct ModelHost::Slot {
  std::shared_ptr<LoadedModel> model;
  std::vector<std::shared_ptr<Wake>> waiting;  // for the load that is under way
  bool loading = false;
  std::string error;  // of the last load
  std::chrono::steady_clock::time_point used{};
};

ModelHost::ModelHost(std::vector<ModelSettings> models, asio::thread_pool& loader)
    : loader_(loader), models_(std::move(models)) {
  for (size_t i = 0; i < models_.size(); ++i) slots_.push_back(std::make_unique<Slot>());
}

ModelHost::~ModelHost() = default;

const std::vector<ModelSettings>& ModelHost::models() const { return models_; }

int ModelHost::find(std::string_view name) const {
  if (name.empty()) return 0;
  const auto matches = [](std::string_view known, std::string_view asked) {
    if (!asked.starts_with(known)) return false;
    asked.remove_prefix(known.size());
    return asked.empty() || asked == "-reasoner" || asked == "-chat";
  };
  for (size_t i = 0; i < models_.size(); ++i) {
    const ModelSettings& m = models_[i];
    if (matches(m.name, name) || std::ranges::any_of(m.aliases, [&](const auto& a) { return matches(a, name); }))
      return static_cast<int>(i);
  }
  return -1;
}

asio::awaitable<Result<std::shared_ptr<LoadedModel>>> ModelHost::acquire(int index) {
  Slot& slot = *slots_[static_cast<size_t>(index)];
  slot.used = std::chrono::steady_clock::now();
  if (slot.model) co_return slot.model;
  if (slot.loading) {
    auto wake = std::make_shared<Wake>(co_await asio::this_coro::executor);
    slot.waiting.push_back(wake);
    while (slot.loading) co_await wake->wait(std::chrono::seconds(1));
    if (slot.model) co_return slot.model;
    co_return fail("{}", slot.error);
  }
  slot.loading = true;
  const auto open = [&settings = models_[static_cast<size_t>(index)]] { return LoadedModel::open(settings); };
  auto result = co_await run_on(loader_, open);
  slot.loading = false;
  slot.used = std::chrono::steady_clock::now();
  if (result)
    slot.model = *result;
  else
    slot.error = result.error().message;
  for (const auto& wake : std::exchange(slot.waiting, {})) wake->notify();
  co_return result;
}

std::shared_ptr<LoadedModel> ModelHost::loaded(int index) const { return slots_[static_cast<size_t>(index)]->model; }

void ModelHost::unload_idle(std::chrono::steady_clock::time_point now) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = *slots_[i];
    const auto after = models_[i].unload_after;
    // Held by no one else: nothing of it is under way.
    if (!slot.model || after.count() == 0 || slot.model.use_count() > 1) {
      if (slot.model && slot.model.use_count() > 1) slot.used = now;
      continue;
    }
    if (now - slot.used < after) continue;
    // Unmapping and freeing take a while.
    asio::post(loader_, [model = std::exchange(slot.model, nullptr)]() mutable { model.reset(); });
  }
}

void ModelHost::close() {
  for (const auto& slot : slots_)
    if (slot->model) slot->model->scheduler->close(std::chrono::milliseconds(0));
}

}  // namespace fathom
