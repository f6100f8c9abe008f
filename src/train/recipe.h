// A training recipe: a JSON file that says everything a run depends on but the program and the number of threads.
// docs/training.md describes the fields.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/config.h"
#include "tasks/mix.h"

namespace fathom::train {

// η(n) of step n = 0, 1, …: linear to `peak` in `warmup_steps`, then half a cosine to final_share · peak at the last
// step.
struct LearningRate {
  double peak = 0;
  int64_t warmup_steps = 0;
  double final_share = 1;

  double at(int64_t step, int64_t steps) const;
};

// Decoupled weight decay (Loshchilov, Hutter 2019), of matrices only; gradients are cut to a global norm first.
struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double clip_norm = 1;
};

// What the synthetic tasks of a stage look like (tasks/mix.h).
struct TaskSettings {
  std::vector<TaskWeight> weights = default_weights();
  int thinking_percent = 50, multi_turn_percent = 15;
  int64_t max_length = 2000;  // tokens of look-up texts
  int64_t length = 0;         // of each look-up text; 0: drawn up to max_length
};

struct Stage {
  std::string name;
  std::string twin_of;  // dense twin of that stage: same start, data and schedule, dense attention; empty: none
  // The stage whose end this one begins at; −1: the initial weights. A twin is no one's start.
  int64_t starts_from = -1;
  int64_t steps = 0;
  int64_t batch_tokens = 0;     // of a step, in all its packs
  int64_t sequence_length = 0;  // rows of a pack at most: what is in memory at once
  LearningRate learning_rate;
  bool indexer_only = false;      // all else is frozen
  bool sparse_attention = false;  // over the indexer's selection
  double index_loss_weight = 0, mtp_loss_weight = 0;
  double bias_update_speed = 0;  // γ
  uint64_t data_seed = 0;        // a twin's is that of its sibling
  TaskSettings tasks;            // unless the recipe names a chat file
  bool exported = false;
  // Of the model at the end of this stage, as it is exported: rope_scaling, index_topk and context are the stage's, a
  // dense twin has no indexer.
  ModelConfig config;

  bool indexer_learns() const { return index_loss_weight > 0; }
};

struct Recipe {
  std::string name;
  ModelConfig model;  // with the indexer, if any: all parameters of the run
  std::filesystem::path tokenizer;
  std::filesystem::path chat;  // JSONL with `messages`; empty: the tasks
  double prompt_loss_weight = 0;
  uint64_t seed = 1;
  double init_std = 0.02;
  double save_minutes = 3;
  double temperature = 1.0, top_p = 0.95;  // of generation_config.json
  AdamWSettings optimizer;
  std::vector<Stage> stages;
  // The recipe without paths and spaces: what a resumed run must agree with.
  std::string canonical;
};

// Every field is checked, unknown ones are refused, all problems come at once. Paths are relative to the recipe's
// folder.
Result<Recipe> load_recipe(const std::filesystem::path& file);
Result<Recipe> parse_recipe(std::string_view json, const std::filesystem::path& folder, std::string_view source);

}  // namespace fathom::train
