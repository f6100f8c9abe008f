// The ledger: a row for each request, in a file that survives whatever happens to the process; and what each key has spent.
//
// Promises:
// - `add` takes a mutex for a moment and never waits for the disk. A thread of the ledger's own writes what has come, all of it
//   in one transaction. A killed process loses what had not been written, mostly some milliseconds of it; what is in the file
//   is whole.
// - A disk that is full or fails costs rows, never a request: what does not fit into the queue meanwhile is dropped and
//   counted, the last error is told in words (LedgerStats), and writing is tried again every `retry`.
// - What a key has spent counts at once, and also for rows that were dropped. In the file it is written with the rows, and
//   stands when old rows are deleted. Several servers may share a ledger: each learns what the others' requests have cost
//   when it next writes a row of that key.
// - What was asked and answered is in no row unless `text` is set. The file is readable by its owner alone.
//
// On disk: SQLite in WAL mode (FILE, FILE-wal, FILE-shm), which may be read with other tools meanwhile.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "api/api_call.h"
#include "base/result.h"
#include "serve/sqlite.h"

namespace fathom {

struct LedgerRow {
  int64_t time_ms = 0;  // when the request came, since 1970
  std::string request_id{};
  std::string key{};            // its name; empty: none was asked for
  std::string model{};          // empty: the request names none that there is
  std::string endpoint{};       // "/v1/chat/completions"
  int status = 0;               // of HTTP
  bool aborted = false;         // the client left before the end
  std::string finish_reason{};  // as the API words it, of the first choice; empty: no answer
  Usage usage{};
  int64_t choices = 0;
  int64_t drafted = 0, accepted = 0;  // tokens
  double queue_ms = 0, total_ms = 0;
  std::optional<double> first_token_ms{}, first_answer_ms{};  // since the request came; nothing: none came
  double price_usd = 0;
  std::string request_text{}, answer_text{};  // kept only where the settings say so
};

struct LedgerSettings {
  std::filesystem::path file;             // made when it is missing
  bool text = false;                      // keep what was asked and answered
  size_t queue_bytes = size_t{32} << 20;  // of rows in memory; some 80,000 without text
  std::chrono::milliseconds retry{1000};
};

struct LedgerStats {
  int64_t written = 0;       // rows in the file, by this process
  int64_t dropped = 0;       // rows lost: no room in the queue, or the last try at the end failed
  int64_t queued = 0;        // rows in memory
  int64_t errors = 0;        // failed tries to write
  std::string last_error{};  // the latest of them in words; empty when there was none
};

// Thread-safe.
class Ledger {
 public:
  // Fails on a file that is damaged, of another version or of something else, or that cannot be written.
  static Result<std::unique_ptr<Ledger>> open(const LedgerSettings& settings);
  // Tries once more to write what waits.
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  void add(LedgerRow row);
  // USD, of all requests of that key ever.
  double spent_usd(std::string_view key) const;
  // Waits until all rows so far are in the file. False when `wait` has passed before.
  bool flush(std::chrono::milliseconds wait);
  LedgerStats stats() const;

 private:
  using Spent = std::map<std::string, double, std::less<>>;  // USD by key

  Ledger(const LedgerSettings& settings, Database database);
  Status read_spent();
  void write_rows();
  Status write(const std::vector<LedgerRow>& rows, const Spent& saving, Spent& stored);

  const LedgerSettings settings_;
  Database database_;  // of the thread, once it runs

  mutable std::mutex mutex_;  // guards all below
  std::vector<LedgerRow> queue_;
  size_t bytes_ = 0;     // of the rows in memory, those that are being written included
  int64_t writing_ = 0;  // rows
  bool busy_ = false;    // the thread has something that is not in the file yet
  // What a key has spent is the sum of the three: in the file; in the transaction under way; since then.
  Spent stored_, saving_, unsaved_;
  LedgerStats stats_;
  bool stopping_ = false;
  std::condition_variable work_, idle_;
  std::thread writer_;
};

// The format of the file, for those that read it (usage_report.h).
extern const DatabaseFormat kLedgerFormat;

}  // namespace fathom
