#include "train/run_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"

namespace fathom::train {

namespace {

using nlohmann::json;
using namespace std::chrono_literals;
constexpr auto kRedrawEvery = 200ms;  // on a terminal
constexpr auto kLineEvery = 20s;      // in a file

json to_json(const StepRecord& r) {
  json j = {{"stage", r.stage},
            {"step", r.step},
            {"tokens", r.tokens},
            {"loss", r.loss},
            {"gradient_norm", r.gradient_norm},
            {"learning_rate", r.learning_rate},
            {"tokens_per_second", r.tokens_per_second},
            {"seconds", r.seconds},
            {"memory_mb", r.memory_mb}};
  const auto optional = [&](const char* name, const std::optional<double>& value) {
    if (value) j[name] = *value;
  };
  optional("mtp_loss", r.mtp_loss);
  optional("kl", r.kl);
  optional("recall", r.recall);
  optional("balance", r.balance);
  return j;
}

std::optional<StepRecord> from_json(std::string_view line) {
  const json j = json::parse(line, nullptr, false);
  if (!j.is_object()) return std::nullopt;  // half a line, cut off by a kill
  StepRecord r;
  try {
    r.stage = j.at("stage");
    r.step = j.at("step");
    r.tokens = j.at("tokens");
    r.loss = j.at("loss");
    r.gradient_norm = j.at("gradient_norm");
    r.learning_rate = j.at("learning_rate");
    r.tokens_per_second = j.at("tokens_per_second");
    r.seconds = j.at("seconds");
    r.memory_mb = j.at("memory_mb");
    const auto optional = [&](const char* name, std::optional<double>& value) {
      if (j.contains(name)) value = j.at(name).get<double>();
    };
    optional("mtp_loss", r.mtp_loss);
    optional("kl", r.kl);
    optional("recall", r.recall);
    optional("balance", r.balance);
  } catch (const json::exception&) {
    return std::nullopt;
  }
  return r;
}

std::string time_text(double seconds) {
  if (seconds < 100) return fmt::format("{:.0f} s", seconds);
  return seconds < 6000 ? fmt::format("{:.0f} m", seconds / 60) : fmt::format("{:.1f} h", seconds / 3600);
}

}  // namespace

Result<RunLog> RunLog::open(const std::filesystem::path& file, const std::function<bool(const StepRecord&)>& done) {
  RunLog log;
  log.file_ = file;
  std::string kept;
  if (std::filesystem::exists(file)) {
    FATHOM_TRY(const std::string text, read_file(file, size_t{4} << 30));
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      if (end == std::string::npos) break;
      const auto record = from_json(std::string_view(text).substr(at, end - at));
      if (!record || !done(*record)) break;
      kept.append(text, at, end + 1 - at);
      log.records_.push_back(*record);
      at = end + 1;
    }
  }
  FATHOM_RETURN_IF_ERROR(write_file_atomically(file, kept));
  log.fd_ = ::open(file.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (log.fd_ < 0) return fail("{}: cannot open: {}", file.string(), std::strerror(errno));
  return log;
}

RunLog::RunLog(RunLog&& other) noexcept
    : file_(std::move(other.file_)), fd_(std::exchange(other.fd_, -1)), records_(std::move(other.records_)) {}

RunLog::~RunLog() {
  if (fd_ >= 0) close(fd_);
}

Status RunLog::add(const StepRecord& record) {
  records_.push_back(record);
  const std::string line = to_json(record).dump() + "\n";
  for (size_t at = 0; at < line.size();) {
    const ssize_t n = write(fd_, line.data() + at, line.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail("{}: cannot write: {}", file_.string(), std::strerror(errno));
    at += static_cast<size_t>(n);
  }
  return {};
}

RunDisplay::RunDisplay(const Recipe& recipe) : recipe_(recipe), terminal_(isatty(STDERR_FILENO) != 0) {}

RunDisplay::~RunDisplay() {
  if (visible_) std::fputs("\n", stderr);
}

void RunDisplay::step(size_t index, const StepRecord& r) {
  const Stage& stage = recipe_.stages[index];
  const auto now = std::chrono::steady_clock::now();
  const bool last = r.step == stage.steps;
  if (!last &&
      now - shown_ < (terminal_ ? std::chrono::nanoseconds(kRedrawEvery) : std::chrono::nanoseconds(kLineEvery)))
    return;
  shown_ = now;
  std::string line = fmt::format("{} ({}/{}) step {}/{} · loss {:.4f}", stage.name, index + 1, recipe_.stages.size(),
                                 r.step, stage.steps, r.loss);
  if (r.mtp_loss) line += fmt::format(" · MTP {:.4f}", *r.mtp_loss);
  if (r.kl) line += fmt::format(" · KL {:.3g}", *r.kl);
  if (r.recall) line += fmt::format(" · recall {:.1f} %", 100 * *r.recall);
  if (r.balance) line += fmt::format(" · balance {:.2f}", *r.balance);
  line += fmt::format(" · {:.0f} tokens/s · {} left", r.tokens_per_second,
                      time_text(r.seconds * static_cast<double>(stage.steps - r.step)));
  std::fputs((terminal_ ? "\r" + line + "\033[K" : line + "\n").c_str(), stderr);
  visible_ = terminal_;
  std::fflush(stderr);
}

void RunDisplay::say(const std::string& line) {
  if (visible_) std::fputs("\n", stderr);
  visible_ = false;
  fmt::print(stderr, "fathom: {}\n", line);
}

}  // namespace fathom::train
