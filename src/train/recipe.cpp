#include "train/recipe.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>

#include "base/file.h"
#include "checkpoint/json_fields.h"
#include "checkpoint/json_text.h"
#include "tasks/random.h"

namespace fathom::train {

namespace {

using nlohmann::json;

constexpr int64_t kMaxSteps = 100'000'000;
constexpr int64_t kMaxBatchTokens = int64_t{1} << 28;
constexpr int64_t kMaxSequence = int64_t{1} << 20;
constexpr size_t kMaxStages = 64;
constexpr size_t kMaxRecipeBytes = size_t{1} << 20;
constexpr size_t kMaxName = 64;

// Stage names become file names.
bool plain_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName &&
         std::ranges::all_of(name, [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; });
}

class Reader {
 public:
  Reader(const json& document, const std::filesystem::path& folder, Problems& problems)
      : document_(document), folder_(folder), problems_(problems) {}

  Recipe read() {
    JsonFields f(document_, "", problems_);
    recipe_.name = f.text("name");
    read_model(f);
    recipe_.tokenizer = folder_ / f.text("tokenizer");
    recipe_.seed = static_cast<uint64_t>(f.integer("seed", 0, std::numeric_limits<int64_t>::max(), 1));
    recipe_.init_std = f.number("init_std", 0, 1, false, recipe_.init_std);
    recipe_.save_minutes = f.number("save_minutes", 0, 1e6, true, recipe_.save_minutes);
    if (const json* generation = f.object("generation", false)) {
      JsonFields g(*generation, "generation.", problems_);
      recipe_.temperature = g.number("temperature", 0, 100, true, recipe_.temperature);
      recipe_.top_p = g.number("top_p", 0, 1, false, recipe_.top_p);
      g.refuse_others();
    }
    read_data(f);
    read_optimizer(f);
    read_stages(f);
    f.refuse_others();
    recipe_.canonical = document_.dump();
    return std::move(recipe_);
  }

 private:
  void read_model(JsonFields& f) {
    model_ = f.object("model", true);
    if (!model_) return;
    Problems own;
    if (const auto config = parse_config(model_->dump(), own))
      recipe_.model = *config;
    else
      model_ = nullptr;
    for (const std::string& line : own.lines()) problems_.add("model: {}", line);
  }

  void read_data(JsonFields& f) {
    const json* data = f.object("data", true);
    if (!data) return;
    JsonFields d(*data, "data.", problems_);
    recipe_.prompt_loss_weight = d.number("prompt_loss_weight", 0, 1, true, 0.0);
    if (d.has("chat")) {
      recipe_.chat = folder_ / d.text("chat");
      if (d.has("tasks")) problems_.add("data.chat and data.tasks are both given: keep one of them");
    }
    if (const json* tasks = d.object("tasks", recipe_.chat.empty())) {
      JsonFields t(*tasks, "data.tasks.", problems_);
      read_tasks(t, tasks_);
      t.refuse_others();
    }
    d.refuse_others();
  }

  // What is absent stays as it is.
  void read_tasks(JsonFields& f, TaskSettings& tasks) {
    tasks.thinking_percent = static_cast<int>(f.integer("thinking_percent", 0, 100, tasks.thinking_percent));
    tasks.multi_turn_percent = static_cast<int>(f.integer("multi_turn_percent", 0, 100, tasks.multi_turn_percent));
    tasks.max_length = f.integer("max_length", kMinLength, kMaxLength, tasks.max_length);
    if (f.has("length")) tasks.length = f.integer("length", kMinLength, kMaxLength, tasks.length);
    const json* weights = f.object("weights", false);
    if (!weights) return;
    tasks.weights.clear();
    JsonFields w(*weights, f.prefix() + "weights.", problems_);
    for (const TaskInfo& task : task_list())
      if (const std::string name(task.name); w.has(name.c_str()))
        tasks.weights.push_back({name, w.integer(name.c_str(), 0, 1'000'000)});
    w.refuse_others();
    if (std::ranges::none_of(tasks.weights, [](const TaskWeight& t) { return t.weight > 0; }))
      problems_.add("{}weights: no task has a weight above 0, expected at least one", f.prefix());
  }

  void read_optimizer(JsonFields& f) {
    const json* object = f.object("optimizer", false);
    if (!object) return;
    JsonFields o(*object, "optimizer.", problems_);
    AdamWSettings& s = recipe_.optimizer;
    s.beta1 = o.number("beta1", 0, 0.99999, true, s.beta1);
    s.beta2 = o.number("beta2", 0, 0.99999, true, s.beta2);
    s.eps = o.number("eps", 0, 1, false, s.eps);
    s.weight_decay = o.number("weight_decay", 0, 10, true, s.weight_decay);
    s.clip_norm = o.number("clip_norm", 0, 1e6, false, s.clip_norm);
    o.refuse_others();
  }

  void read_stages(JsonFields& f) {
    const json* stages = f.find("stages");
    if (!stages) return f.missing("stages", "a list of at least one stage");
    if (!stages->is_array() || stages->empty() || stages->size() > kMaxStages)
      return f.found("stages", *stages, fmt::format("a list of 1 to {} stages", kMaxStages));
    for (size_t i = 0; i < stages->size(); ++i) {
      const json& stage = (*stages)[i];
      const std::string prefix = fmt::format("stages[{}].", i);
      if (!stage.is_object()) {
        problems_.add("stages[{}]: found {}, expected an object", i, shown_json(stage));
        continue;
      }
      JsonFields s(stage, prefix, problems_);
      recipe_.stages.push_back(s.has("twin_of") ? read_twin(s) : read_stage(s));
      s.refuse_others();
    }
  }

  int64_t last_non_twin() const {
    for (size_t i = recipe_.stages.size(); i-- > 0;)
      if (recipe_.stages[i].twin_of.empty()) return static_cast<int64_t>(i);
    return -1;
  }

  std::string read_name(JsonFields& s) {
    std::string name = s.text("name");
    if (!s.good({"name"})) return name;
    if (!plain_name(name))
      problems_.add("{}name: found {}, expected letters, digits, - and _", s.prefix(), in_quotes(name));
    if (!names_.insert(name).second)
      problems_.add("{}name: {} is taken by an earlier stage", s.prefix(), in_quotes(name));
    return name;
  }

  Stage read_stage(JsonFields& s) {
    Stage stage;
    stage.name = read_name(s);
    stage.starts_from = last_non_twin();
    read_size(s, stage);
    if (const json* object = s.object("learning_rate", true)) {
      JsonFields l(*object, s.prefix() + "learning_rate.", problems_);
      stage.learning_rate.peak = l.number("peak", 0, 10, false, std::nullopt);
      stage.learning_rate.warmup_steps = l.integer("warmup_steps", 0, kMaxSteps, 0);
      stage.learning_rate.final_share = l.number("final_share", 0, 1, true, 1.0);
      l.refuse_others();
    }
    stage.indexer_only = s.word("learns", {"all", "indexer"}, true) == "indexer";
    stage.sparse_attention = s.word("attention", {"dense", "sparse"}, true) == "sparse";
    stage.index_loss_weight = s.number("index_loss_weight", 0, 1e6, true, 0.0);
    stage.mtp_loss_weight = s.number("mtp_loss_weight", 0, 1e6, true, 0.0);
    stage.bias_update_speed = s.number("bias_update_speed", 0, 1, true, 0.0);
    stage.exported = s.boolean("export", false);
    stage.tasks = tasks_;
    read_tasks(s, stage.tasks);
    stage.data_seed = hash_text(stage.name) ^ mix_bits(recipe_.seed);
    read_config(s, stage);
    check(s, stage);
    return stage;
  }

  void read_size(JsonFields& s, Stage& stage) {
    stage.batch_tokens = s.integer("batch_tokens", 16, kMaxBatchTokens);
    stage.sequence_length = s.integer("sequence_length", 16, kMaxSequence);
    if (s.has("steps") == s.has("tokens")) {
      problems_.add("{}steps: {}, expected one of steps and tokens", s.prefix(),
                    s.has("steps") ? "steps and tokens are both given" : "absent, and so is tokens");
      return;
    }
    if (s.has("steps")) {
      stage.steps = s.integer("steps", 1, kMaxSteps);
    } else {
      const int64_t tokens = s.integer("tokens", 1, int64_t{1} << 50);
      stage.steps = std::max<int64_t>(1, (tokens + stage.batch_tokens - 1) / stage.batch_tokens);
    }
  }

  // The model's config with what the stage changes, through the same checks; what is absent is as where it starts.
  void read_config(JsonFields& s, Stage& stage) {
    const json* rope = s.object("rope_scaling", false);
    const json* context = s.find("max_position_embeddings");
    const json* top_k = s.find("index_topk");
    if (!model_) return;
    json config = stage.starts_from < 0
                      ? *model_
                      : json::parse(config_to_json(recipe_.stages[static_cast<size_t>(stage.starts_from)].config));
    if (rope) {
      config.erase("rope_parameters");
      config["rope_scaling"] = *rope;
    }
    if (context) config["max_position_embeddings"] = *context;
    if (top_k) config["index_topk"] = *top_k;
    Problems own;
    if (const auto parsed = parse_config(config.dump(), own)) stage.config = *parsed;
    for (const std::string& line : own.lines()) problems_.add("{}{}", s.prefix(), line);
  }

  void check(JsonFields& s, const Stage& stage) {
    const bool has_indexer = recipe_.model.sparse();
    if (model_ && !has_indexer && (stage.indexer_only || stage.sparse_attention || stage.indexer_learns()))
      problems_.add(
          "{}attention, learns, index_loss_weight: this needs an indexer, but the model has no index_* fields",
          s.prefix());
    if (stage.indexer_only && !stage.indexer_learns())
      problems_.add("{}index_loss_weight: found {}, expected more than 0: the indexer learns from nothing else",
                    s.prefix(), stage.index_loss_weight);
    if (model_ && stage.mtp_loss_weight > 0 && recipe_.model.num_nextn_predict_layers == 0)
      problems_.add("{}mtp_loss_weight: found {}, but the model has no MTP layer (num_nextn_predict_layers)",
                    s.prefix(), stage.mtp_loss_weight);
    if (s.good({"sequence_length"}) && stage.config.max_position_embeddings > 0 &&
        stage.sequence_length > stage.config.max_position_embeddings)
      problems_.add("{}sequence_length: found {}, expected at most max_position_embeddings, which is {} here",
                    s.prefix(), stage.sequence_length, stage.config.max_position_embeddings);
    const bool drawn = stage.tasks.length == 0;
    const int64_t longest = drawn ? stage.tasks.max_length : stage.tasks.length;
    if (recipe_.chat.empty() && s.good({"sequence_length"}) && longest >= stage.sequence_length)
      problems_.add("{}{}: found {}, expected less than sequence_length, which is {}: the answer must fit too",
                    s.prefix(), drawn ? "max_length" : "length", longest, stage.sequence_length);
  }

  Stage read_twin(JsonFields& s) {
    const std::string name = read_name(s), sibling_name = s.text("twin_of");
    const bool exported = s.boolean("export", false);
    const auto sibling = std::ranges::find(recipe_.stages, sibling_name, &Stage::name);
    if (sibling == recipe_.stages.end() || !sibling->twin_of.empty()) {
      problems_.add("{}twin_of: found {}, expected the name of an earlier stage", s.prefix(), in_quotes(sibling_name));
      return {};
    }
    if (!sibling->sparse_attention)
      problems_.add("{}twin_of: {} has dense attention itself, expected a stage with sparse attention", s.prefix(),
                    in_quotes(sibling_name));
    Stage twin = *sibling;
    twin.name = name;
    twin.twin_of = sibling_name;
    twin.exported = exported;
    twin.sparse_attention = false;
    twin.index_loss_weight = 0;
    twin.config.model_type = "deepseek_v3";
    twin.config.index_n_heads = twin.config.index_head_dim = twin.config.index_topk = 0;
    twin.config.indexer_rope_interleave = false;
    return twin;
  }

  const json& document_;
  const std::filesystem::path& folder_;
  Problems& problems_;
  const json* model_ = nullptr;  // null when it is not sound
  TaskSettings tasks_;
  std::set<std::string> names_;
  Recipe recipe_;
};

}  // namespace

double LearningRate::at(int64_t step, int64_t steps) const {
  if (step < warmup_steps) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const int64_t rest = std::max<int64_t>(1, steps - 1 - warmup_steps);
  const double part = std::clamp(static_cast<double>(step - warmup_steps) / static_cast<double>(rest), 0.0, 1.0);
  return peak * (final_share + (1 - final_share) * 0.5 * (1 + std::cos(std::numbers::pi * part)));
}

Result<Recipe> parse_recipe(std::string_view text, const std::filesystem::path& folder, std::string_view source) {
  const auto document = parse_json(text);
  if (!document) return fail("{}: {}", source, document.error().message);
  if (!document->is_object()) return fail("{}: found {}, expected an object", source, shown_json(*document));
  Problems problems;
  Recipe recipe = Reader(*document, folder, problems).read();
  if (!problems.empty()) return tl::unexpected(problems.error(source));
  return recipe;
}

Result<Recipe> load_recipe(const std::filesystem::path& file) {
  FATHOM_TRY(const auto text, read_file(file, kMaxRecipeBytes));
  return parse_recipe(text, file.parent_path(), file.string());
}

}  // namespace fathom::train
