#include "train/trainer.h"

#include <fmt/ranges.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "tasks/library.h"
#include "tasks/random.h"
#include "text/tokenizer.h"
#include "train/data.h"
#include "train/export.h"
#include "train/model.h"
#include "train/optimizer.h"
#include "train/report.h"
#include "train/run_log.h"
#include "train/state.h"

namespace fathom::train {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

// A sparse stage sees only what is selected; every so many steps one pack is run with dense attention, to see what was
// missed.
constexpr int64_t kProbeEvery = 50;

// Of the process since the last call of reset_peak_memory, as Linux counts it; 0 elsewhere.
double peak_memory_mb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024;
  return 0;
}

void reset_peak_memory() {
  malloc_trim(0);                                 // what the stage before has freed is not this one's
  std::ofstream("/proc/self/clear_refs") << "5";  // 5: the high-water mark alone
}

Status make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail("{}: cannot create the folder: {}", folder.string(), error.message());
  return {};
}

// Busiest expert over the mean, mean over layers.
double expert_balance(const std::vector<Tensor>& load) {
  double sum = 0;
  for (const Tensor& counts : load)
    sum += counts.max().item<double>() / counts.to(torch::kFloat64).mean().item<double>();
  return sum / static_cast<double>(load.size());
}

class Run {
 public:
  Run(const RunOptions& options, Functions& functions, Recipe recipe)
      : options_(options), f_(functions), recipe_(std::move(recipe)), display_(recipe_) {}

  Result<RunEnd> run() {
    FATHOM_TRY(data_, describe_data());
    FATHOM_RETURN_IF_ERROR(check_folder());
    FATHOM_TRY(tokenizer_, Tokenizer::load(recipe_.tokenizer));
    if (tokenizer_->vocab_size() > recipe_.model.vocab_size)
      return fail("{}: has ids up to {}, but the model's vocab_size is {}: raise it to at least {}",
                  recipe_.tokenizer.string(), tokenizer_->vocab_size() - 1, recipe_.model.vocab_size,
                  tokenizer_->vocab_size());
    if (!recipe_.chat.empty()) {
      FATHOM_TRY(chat_, load_chat_file(recipe_.chat, *tokenizer_, recipe_.prompt_loss_weight));
    }
    parameters_ = Parameters::initialise(recipe_.model, recipe_.seed, recipe_.init_std);
    if (!options_.resume) FATHOM_RETURN_IF_ERROR(create_folder());
    FATHOM_TRY(RunPosition at, begin());
    size_t index = stage_index(at.stage);
    FATHOM_TRY(RunLog log, RunLog::open(options_.folder / "log.jsonl", [&](const StepRecord& r) {
                 const size_t i = stage_index(r.stage);
                 return i < index || (i == index && r.step <= at.step);
               }));
    display_.say(fmt::format("{}: {} parameters, {} stages, in {}", recipe_.name, parameters_.count(),
                             recipe_.stages.size(), options_.folder.string()));
    if (options_.resume) display_.say(fmt::format("goes on after step {} of {}", at.step, at.stage));
    for (; index < recipe_.stages.size(); ++index, at.step = 0) {
      const Stage& stage = recipe_.stages[index];
      if (at.step == 0) FATHOM_RETURN_IF_ERROR(start_stage(stage));
      FATHOM_TRY(const RunEnd end, run_stage(index, at.step, log));
      FATHOM_RETURN_IF_ERROR(write_report(options_.folder / "report.html", recipe_, log.records()));
      if (end == RunEnd::kStopped) return end;
      FATHOM_RETURN_IF_ERROR(finish_stage(stage));
    }
    display_.say(fmt::format("all stages are done: {}", (options_.folder / "report.html").string()));
    return RunEnd::kFinished;
  }

 private:
  fs::path stage_file(const std::string& name) const { return options_.folder / "stages" / (name + ".safetensors"); }
  fs::path state_file() const { return options_.folder / "state.safetensors"; }
  fs::path start_file() const { return options_.folder / "start.safetensors"; }

  // The number of stages for one that the recipe does not have.
  size_t stage_index(const std::string& name) const {
    return static_cast<size_t>(std::ranges::find(recipe_.stages, name, &Stage::name) - recipe_.stages.begin());
  }

  // What batches are a function of, besides recipe and tokenizer.
  Result<json> describe_data() const {
    if (recipe_.chat.empty()) return json{{"tasks_version", kTasksVersion}};
    FATHOM_TRY(const std::string text, read_file(recipe_.chat, kMaxChatBytes));
    return json{{"chat_bytes", text.size()}, {"chat_hash", hash_text(text)}};
  }
  fs::path data_file() const { return options_.folder / "data.json"; }

  // Nothing is written yet. What makes a folder a run is its recipe, and a run goes on with the same one.
  Status check_folder() const {
    const fs::path file = options_.folder / "recipe.json";
    std::error_code error;
    if (fs::exists(options_.folder, error) && !fs::is_directory(options_.folder, error))
      return fail("{}: is there and is no folder: choose another name", options_.folder.string());
    if (!fs::exists(file, error)) {
      if (options_.resume) return fail("{}: is not there: nothing to resume; leave --resume out", file.string());
      if (fs::exists(options_.folder, error) && !fs::is_empty(options_.folder, error))
        return fail("{}: is not empty and holds no training run: empty it, or choose another folder",
                    options_.folder.string());
      return {};
    }
    if (!options_.resume)
      return fail("{}: holds a training run already: go on with it by --resume, or choose another folder",
                  options_.folder.string());
    FATHOM_TRY(const std::string text, read_file(file));
    const json theirs = json::parse(text, nullptr, false), ours = json::parse(recipe_.canonical);
    if (theirs != ours) {
      std::set<std::string> differ;
      for (const json* object : {&theirs, &ours})
        if (object->is_object())
          for (const auto& [key, value] : object->items())
            if (theirs.value(key, json()) != ours.value(key, json())) differ.insert(key);
      return fail("{}: the run was started with another recipe, they differ in: {}; give that one, or another folder",
                  file.string(), fmt::join(differ, ", "));
    }
    FATHOM_TRY(const std::string tokenizer, read_file(recipe_.tokenizer));
    FATHOM_TRY(const std::string before, read_file(options_.folder / "tokenizer.json"));
    if (before != tokenizer)
      return fail("{}: is not the tokenizer that the run was started with, {}", recipe_.tokenizer.string(),
                  (options_.folder / "tokenizer.json").string());
    FATHOM_TRY(const std::string data, read_file(data_file()));
    if (json::parse(data, nullptr, false) != data_)
      return fail("{}: the run was started with other data, {} and not {}; {}", data_file().string(), data,
                  data_.dump(),
                  recipe_.chat.empty() ? "this program draws other tasks: start anew, or go on with the program of then"
                                       : recipe_.chat.string() + " has changed: put it back as it was, or start anew");
    if (options_.from)
      return fail("--from and --resume: a run that goes on has its weights already; leave one of them out");
    return {};
  }

  // The recipe comes last: whatever fails before it, an unreadable --from for instance, leaves no run that --resume would
  // take up with other weights.
  Status create_folder() {
    if (options_.from) FATHOM_RETURN_IF_ERROR(parameters_.load_checkpoint(*options_.from, recipe_.model));
    FATHOM_TRY(const std::string tokenizer, read_file(recipe_.tokenizer));
    FATHOM_RETURN_IF_ERROR(make_folder(options_.folder / "stages"));
    FATHOM_RETURN_IF_ERROR(write_file_atomically(options_.folder / "tokenizer.json", tokenizer));
    FATHOM_RETURN_IF_ERROR(save_parameters(start_file(), parameters_));
    FATHOM_RETURN_IF_ERROR(write_file_atomically(data_file(), data_.dump()));
    return write_file_atomically(options_.folder / "recipe.json", json::parse(recipe_.canonical).dump(2) + "\n");
  }

  // Where to go on. The weights are loaded, and the moments of the stage under way.
  Result<RunPosition> begin() {
    optimizer_.emplace(parameters_, recipe_.optimizer);
    if (fs::exists(state_file())) {
      FATHOM_TRY(const RunPosition at, load_state(state_file(), parameters_, *optimizer_));
      const size_t index = stage_index(at.stage);
      if (index < recipe_.stages.size() && at.step <= recipe_.stages[index].steps) return at;
      return fail("{}: is in stage '{}' at step {}, which the recipe does not have", state_file().string(), at.stage,
                  at.step);
    }
    return RunPosition{recipe_.stages.front().name, 0};
  }

  Status start_stage(const Stage& stage) {
    const fs::path from =
        stage.starts_from < 0 ? start_file() : stage_file(recipe_.stages[static_cast<size_t>(stage.starts_from)].name);
    FATHOM_RETURN_IF_ERROR(load_parameters(from, parameters_));
    optimizer_.emplace(parameters_, recipe_.optimizer);  // every stage begins with moments of 0
    return {};
  }

  Status finish_stage(const Stage& stage) {
    FATHOM_RETURN_IF_ERROR(save_parameters(stage_file(stage.name), parameters_));
    if (!stage.exported) return {};
    const fs::path folder = options_.folder / "export" / stage.name;
    FATHOM_RETURN_IF_ERROR(export_checkpoint(folder, stage.config, parameters_, recipe_));
    display_.say(fmt::format("exported {}", folder.string()));
    return {};
  }

  Result<std::unique_ptr<ExampleSource>> make_source(const Stage& stage) {
    if (recipe_.chat.empty())
      return make_task_source(stage.tasks, stage.data_seed, *tokenizer_, recipe_.prompt_loss_weight);
    LeftOut out;
    auto source = make_chat_source(chat_, stage.data_seed, stage.batch_tokens, stage.sequence_length, &out);
    if (source && out.examples > 0)
      display_.say(
          fmt::format("{}: {} of {} conversations are left out: the longest has {} tokens, and sequence_length is {}",
                      stage.name, out.examples, chat_.size(), out.longest, stage.sequence_length));
    return source;
  }

  Result<RunEnd> run_stage(size_t index, int64_t first, RunLog& log) {
    const Stage& stage = recipe_.stages[index];
    if (first == stage.steps) return RunEnd::kFinished;
    for (Parameter& p : parameters_.all()) p.value.requires_grad_(p.trained && (!stage.indexer_only || p.indexer));
    FATHOM_TRY(auto source, make_source(stage));
    BatchQueue batches(std::move(source), stage.steps, stage.batch_tokens, stage.sequence_length);
    Model model(stage.config, parameters_, f_);
    reset_peak_memory();
    Clock::time_point saved = Clock::now();
    for (int64_t step = first; step < stage.steps; ++step) {
      FATHOM_TRY(const Batch batch, batches.take(step));
      FATHOM_TRY(const StepRecord record, train_step(stage, step, batch, model));
      FATHOM_RETURN_IF_ERROR(log.add(record));
      display_.step(index, record);
      const bool stop = options_.stop && *options_.stop;
      const bool due = seconds_since(saved) >= recipe_.save_minutes * 60;
      if (stop || due || step + 1 == stage.steps) {
        FATHOM_RETURN_IF_ERROR(save_state(state_file(), {stage.name, step + 1}, parameters_, *optimizer_));
        if (due) FATHOM_RETURN_IF_ERROR(write_report(options_.folder / "report.html", recipe_, log.records()));
        saved = Clock::now();
      }
      if (stop) {
        display_.say(fmt::format("stopped and saved after step {} of {}: go on with --resume", step + 1, stage.name));
        return RunEnd::kStopped;
      }
    }
    return RunEnd::kFinished;
  }

  Result<StepRecord> train_step(const Stage& stage, int64_t step, const Batch& batch, Model& model) {
    const Clock::time_point start = Clock::now();
    const bool has_mtp = stage.config.num_nextn_predict_layers > 0;
    const ForwardOptions options{.sparse_attention = stage.sparse_attention,
                                 .index_loss = stage.indexer_learns(),
                                 .mtp = has_mtp && (stage.mtp_loss_weight > 0 || stage.indexer_learns())};
    StepRecord record;
    record.stage = stage.name;
    record.step = step + 1;
    record.tokens = batch.rows;
    double lm = 0, mtp = 0, kl = 0, recall = 0;
    std::vector<Tensor> load;
    const double layers =
        static_cast<double>(options.mtp ? stage.config.total_layers() : stage.config.num_hidden_layers);
    const double rows = static_cast<double>(batch.rows);
    for (const Pack& pack : batch.packs) {
      const PackTensors tensors(pack);
      Forward out = model.forward(tensors, options);
      Tensor loss = torch::zeros({});
      if (!stage.indexer_only) {
        if (batch.weight > 0) loss = loss + out.lm / batch.weight;
        if (options.mtp && batch.mtp_weight > 0) loss = loss + out.mtp * (stage.mtp_loss_weight / batch.mtp_weight);
      }
      // The sum over layers: each indexer learns from its own layer alone.
      if (options.index_loss) loss = loss + out.kl * (stage.index_loss_weight / rows);
      if (loss.requires_grad()) loss.backward();
      lm += out.lm.item<double>();
      if (options.mtp) mtp += out.mtp.item<double>();
      if (options.index_loss) kl += out.kl.item<double>();
      recall += out.recall;
      for (size_t i = 0; i < out.load.size(); ++i)
        if (load.size() <= i)
          load.push_back(out.load[i]);
        else
          load[i] += out.load[i];
    }
    record.loss = lm / std::max(batch.weight, 1e-9);
    if (options.mtp) record.mtp_loss = mtp / std::max(batch.mtp_weight, 1e-9);
    if (options.index_loss) record.kl = kl / rows / layers;
    if (options.index_loss && !stage.sparse_attention) record.recall = recall / rows / layers;
    if (!load.empty()) record.balance = expert_balance(load);
    record.gradient_norm = optimizer_->gradient_norm();
    record.learning_rate = stage.learning_rate.at(step, stage.steps);
    FATHOM_RETURN_IF_ERROR(check_finite(record));
    optimizer_->step(record.learning_rate, record.gradient_norm);
    if (!stage.indexer_only && stage.bias_update_speed > 0) update_bias(model, load, stage.bias_update_speed);
    record.seconds = seconds_since(start);
    record.tokens_per_second = rows / record.seconds;
    if (stage.sparse_attention && (step % kProbeEvery == 0 || step + 1 == stage.steps))
      record.recall = probe(model, batch.packs.front(), options.mtp, layers);
    record.memory_mb = peak_memory_mb();
    return record;
  }

  // Nothing of this step has been applied yet.
  static Status check_finite(const StepRecord& r) {
    if (std::isfinite(r.loss) && std::isfinite(r.gradient_norm) && std::isfinite(r.mtp_loss.value_or(0)) &&
        std::isfinite(r.kl.value_or(0)))
      return {};
    return fail(
        "stage {}, step {}: the loss is {}, the norm of the gradient {}: the run stops before this step is applied. "
        "What was saved is untouched; start again with a lower learning_rate.peak or a longer warm-up",
        r.stage, r.step, r.loss, r.gradient_norm);
  }

  // Auxiliary-loss-free balance (V3 report §2.1.2): bias += γ · sign(mean load − load).
  void update_bias(const Model& model, const std::vector<Tensor>& load, double speed) {
    const std::vector<std::string> names = model.bias_names();
    for (size_t i = 0; i < load.size(); ++i) {
      const Tensor counts = load[i].to(torch::kFloat32);
      Tensor bias = parameters_.at(names[i]);
      bias.add_(torch::sign(counts.mean() - counts), speed);
    }
  }

  // Share of dense attention that the selection holds, in the pack with the longest example.
  static double probe(Model& model, const Pack& pack, bool mtp, double layers) {
    const torch::NoGradGuard guard;
    const PackTensors tensors(pack);
    const Forward out = model.forward(tensors, {.index_loss = true, .mtp = mtp, .lm = false});
    return out.recall / static_cast<double>(pack.rows()) / layers;
  }

  const RunOptions& options_;
  Functions& f_;
  const Recipe recipe_;
  RunDisplay display_;
  json data_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<TokenExample> chat_;
  Parameters parameters_;
  std::optional<AdamW> optimizer_;
};

}  // namespace

Result<RunEnd> run_training(const RunOptions& options, Functions& functions) {
  FATHOM_TRY(Recipe recipe, load_recipe(options.recipe));
  return Run(options, functions, std::move(recipe)).run();
}

}  // namespace fathom::train
