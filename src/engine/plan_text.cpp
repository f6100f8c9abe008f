// Plans as tables and as JSON.
#include <fmt/format.h>

#include <iterator>

#include "base/text_lines.h"
#include "engine/plan.h"
#include "model/runner.h"
#include "text/json.h"

namespace fathom {

namespace {

std::string gb(uint64_t bytes) {
  const double x = static_cast<double>(bytes);
  return x >= 1e9 ? three_digits(x * 1e-9) + " GB" : three_digits(x * 1e-6) + " MB";
}

std::string share(double part, double whole) { return whole > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : "–"; }

const std::vector<PlannedPosition>& as_it_is(const Plan& plan) {
  return plan.sparse.empty() ? plan.dense : plan.sparse;
}

void add_hardware(std::string& out, const Plan& plan) {
  const Hardware& h = plan.hardware;
  append_line(out, "{}", plan.input.model);
  append_line(out, "  {} attention, context of {} tokens, {} user{}", plan.sparse.empty() ? "dense" : "sparse",
              plan.input.settings.context, plan.input.settings.users, plan.input.settings.users == 1 ? "" : "s");
  append_line(out, "{}", h.name);
  append_line(out, "  {} memory, {} GB/s, {} TFLOP/s in BF16{}; {}", gb(h.memory_bytes),
              three_digits(h.bandwidth_gb_per_s), three_digits(h.peak_bf16_tflops),
              h.price_per_hour > 0 ? fmt::format(", {:g} an hour", h.price_per_hour) : "", h.source);
}

void add_memory(std::string& out, const Plan& plan) {
  const PlanSettings& s = plan.input.settings;
  const int64_t token = plan.input.config.total_layers() * kv_layout(plan.input.config, s.latent_format).token_bytes();
  append_line(out, "\nMemory");
  append_line(out, "  {:<10}{:>10}  every weight, the MTP layer's included", "weights", gb(plan.input.weight_bytes));
  append_line(out, "  {:<10}{:>10}  {} user{} × {} tokens × {} bytes", "caches", gb(plan.cache_bytes), s.users,
              s.users == 1 ? "" : "s", s.context, token);
  append_line(out, "  {:<10}{:>10}  estimated, for steps of {} tokens", "scratch", gb(plan.scratch_bytes), s.chunk);
  append_line(out, "  {:<10}{:>10}  of {}", "together", gb(plan.needed_bytes()), gb(plan.hardware.memory_bytes));
  if (plan.fits())
    append_line(out, "  fits; there is room for {} user{} of that context", plan.users_that_fit(),
                plan.users_that_fit() == 1 ? "" : "s");
  else if (plan.users_that_fit() > 0)
    append_line(out, "  does not fit: {} too little; there is room for {} user{} of that context",
                gb(plan.needed_bytes() - plan.hardware.memory_bytes), plan.users_that_fit(),
                plan.users_that_fit() == 1 ? "" : "s");
  else
    append_line(out,
                "  does not fit: {} too little; the times below hold for a machine of that speed and enough memory",
                gb(plan.needed_bytes() - plan.hardware.memory_bytes));
}

void add_parts(std::string& out, const Plan& plan, std::string_view title, const PlannedStep& step) {
  const Work total = step.work.total();
  append_line(out, "\n{}", title);
  // Small models are shown in small units.
  const bool giga = total.bytes() >= 1e9;
  const double unit = giga ? 1e-9 : 1e-6;
  append_line(out, "  {:<24}{:>10}{:>9}{:>11}{:>9}{:>11}{:>9}  {}", "part", giga ? "GB" : "MB", "share",
              giga ? "GFLOP" : "MFLOP", "share", "ms", "share", "bound by");
  const Hardware& h = plan.hardware;
  for (size_t i = 0; i < kWorkPartCount; ++i) {
    const Work& w = step.work.parts[i];
    if (w.flops == 0 && w.bytes() == 0) continue;
    const bool memory = w.bytes() / (h.bandwidth_gb_per_s * h.bandwidth_efficiency) >
                        w.flops / (h.peak_bf16_tflops * 1e3 * h.compute_efficiency);
    append_line(out, "  {:<24}{:>10}{:>9}{:>11}{:>9}{:>11}{:>9}  {}", work_part_name(static_cast<WorkPart>(i)),
                three_digits(w.bytes() * unit), share(w.bytes(), total.bytes()), three_digits(w.flops * unit),
                share(w.flops, total.flops), three_digits(1e3 * step.seconds[i]),
                share(step.seconds[i], step.total_seconds()), memory ? "memory" : "arithmetic");
  }
  append_line(out, "  {:<24}{:>10}{:>9}{:>11}{:>9}{:>11}", "together", three_digits(total.bytes() * unit), "",
              three_digits(total.flops * unit), "", three_digits(1e3 * step.total_seconds()));
}

void add_positions(std::string& out, const Plan& plan, std::string_view title, PlannedStep PlannedPosition::*step) {
  const bool cost = plan.hardware.price_per_hour > 0, both = !plan.sparse.empty();
  append_line(out, "\n{}", title);
  std::string head = fmt::format("  {:>9}", "position");
  if (both) head += fmt::format("{:>16}", "sparse tokens/s");
  head += fmt::format("{:>16}", "dense tokens/s");
  if (both) head += fmt::format("{:>8}", "gain");
  if (both && cost) head += fmt::format("{:>20}", "sparse cost/million");
  if (cost) head += fmt::format("{:>20}", "dense cost/million");
  append_line(out, "{}", head);
  for (size_t i = 0; i < plan.dense.size(); ++i) {
    const double dense = (plan.dense[i].*step).tokens_per_second();
    std::string row = fmt::format("  {:>9}", plan.dense[i].position);
    const auto money = [&](double speed) { return three_digits(cost_per_million(plan.hardware, speed).value_or(0)); };
    if (both) {
      const double sparse = (plan.sparse[i].*step).tokens_per_second();
      row += fmt::format("{:>16}{:>16}{:>8.2f}", three_digits(sparse), three_digits(dense), sparse / dense);
      if (cost) row += fmt::format("{:>20}", money(sparse));
    } else {
      row += fmt::format("{:>16}", three_digits(dense));
    }
    if (cost) row += fmt::format("{:>20}", money(dense));
    append_line(out, "{}", row);
  }
}

void add_assumptions(std::string& out, const Plan& plan) {
  const Hardware& h = plan.hardware;
  append_line(out, "\nWhat this rests on");
  append_line(
      out, "  - Nothing was run. A part of a step takes as long as its bytes or its arithmetic, whichever is longer;");
  append_line(out,
              "    parts follow each other. Bytes and FLOPs come from the shapes in config.json (src/engine/work.h).");
  append_line(
      out, "  - {:.0f} % of the bandwidth and {:.0f} % of the peak are reached: assumed, unless a --hardware file says",
      100 * h.bandwidth_efficiency, 100 * h.compute_efficiency);
  append_line(out, "    otherwise (bandwidth_efficiency, compute_efficiency).");
  append_line(out, "  - Experts are chosen uniformly: t tokens of a step need E·(1 − (1 − k/E)^t) of E.");
  append_line(
      out,
      "  - Attention of a prompt's rows is un-absorbed where all visible keys are attended to; otherwise absorbed.");
  append_line(
      out,
      "  - Prefill: one prompt at a time, {} tokens a step. Decode: every user has as many tokens as the position.",
      plan.input.settings.chunk);
  append_line(out, "  - Multi-token prediction is not counted on: its layer takes memory, and neither time nor gain.");
}

Json step_json(const Hardware& hardware, const PlannedStep& step) {
  const Work total = step.work.total();
  Json json{{"tokens_per_second", step.tokens_per_second()},
            {"seconds", step.total_seconds()},
            {"tokens", step.tokens},
            {"flops", total.flops},
            {"weight_bytes", total.weight_bytes},
            {"cache_bytes", total.cache_bytes}};
  if (const auto cost = cost_per_million(hardware, step.tokens_per_second())) json["cost_per_million"] = *cost;
  for (size_t i = 0; i < kWorkPartCount; ++i) {
    const Work& w = step.work.parts[i];
    json["parts"][std::string(work_part_name(static_cast<WorkPart>(i)))] = {{"flops", w.flops},
                                                                            {"weight_bytes", w.weight_bytes},
                                                                            {"cache_bytes", w.cache_bytes},
                                                                            {"seconds", step.seconds[i]}};
  }
  return json;
}

}  // namespace

std::string plan_text(const Plan& plan) {
  std::string out;
  add_hardware(out, plan);
  add_memory(out, plan);
  const PlannedPosition& last = as_it_is(plan).back();
  const std::string one =
      plan.input.settings.users == 1 ? "" : fmt::format(" of each of {} users", plan.input.settings.users);
  add_parts(out, plan, fmt::format("Decode of a token{} at position {}", one, last.position), last.decode);
  add_parts(out, plan, fmt::format("Prefill of {} tokens up to position {}", last.prefill.tokens, last.position),
            last.prefill);
  add_positions(out, plan, "Prefill by position", &PlannedPosition::prefill);
  add_positions(out, plan,
                plan.input.settings.users == 1
                    ? "Decode by position"
                    : fmt::format("Decode by position, {} users together", plan.input.settings.users),
                &PlannedPosition::decode);
  add_assumptions(out, plan);
  return out;
}

std::string plan_json(const Plan& plan) {
  const Hardware& h = plan.hardware;
  Json json{{"model", plan.input.model},
            {"context", plan.input.settings.context},
            {"users", plan.input.settings.users},
            {"chunk", plan.input.settings.chunk},
            {"hardware",
             {{"name", h.name},
              {"source", h.source},
              {"memory_bytes", h.memory_bytes},
              {"bandwidth_gb_per_s", h.bandwidth_gb_per_s},
              {"peak_bf16_tflops", h.peak_bf16_tflops},
              {"price_per_hour", h.price_per_hour},
              {"bandwidth_efficiency", h.bandwidth_efficiency},
              {"compute_efficiency", h.compute_efficiency}}},
            {"memory",
             {{"weight_bytes", plan.input.weight_bytes},
              {"cache_bytes", plan.cache_bytes},
              {"scratch_bytes", plan.scratch_bytes},
              {"needed_bytes", plan.needed_bytes()},
              {"fits", plan.fits()},
              {"users_that_fit", plan.users_that_fit()}}}};
  json["positions"] = Json::array();
  for (size_t i = 0; i < plan.dense.size(); ++i) {
    Json row{{"position", plan.dense[i].position}};
    if (!plan.sparse.empty())
      row["sparse"] = {{"prefill", step_json(h, plan.sparse[i].prefill)},
                       {"decode", step_json(h, plan.sparse[i].decode)}};
    row["dense"] = {{"prefill", step_json(h, plan.dense[i].prefill)}, {"decode", step_json(h, plan.dense[i].decode)}};
    json["positions"].push_back(std::move(row));
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace fathom
