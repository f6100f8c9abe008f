#include "serve/ledger.h"

#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace fathom {

// Times are milliseconds. STRICT: a column holds what it says.
const DatabaseFormat kLedgerFormat{.what = "a ledger",
                                   .application_id = 0x66746c67,  // "ftlg"
                                   .version = 1,
                                   .schema = R"(
      CREATE TABLE requests (
        time_ms INTEGER NOT NULL,
        request_id TEXT NOT NULL,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        status INTEGER NOT NULL,
        aborted INTEGER NOT NULL,
        finish_reason TEXT NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL,
        choices INTEGER NOT NULL,
        drafted_tokens INTEGER NOT NULL,
        accepted_tokens INTEGER NOT NULL,
        queue_ms REAL NOT NULL,
        first_token_ms REAL,
        first_answer_ms REAL,
        total_ms REAL NOT NULL,
        price_usd REAL NOT NULL,
        request_text TEXT,
        answer_text TEXT
      ) STRICT;
      CREATE INDEX requests_by_time ON requests (time_ms);
      CREATE TABLE spent (key TEXT PRIMARY KEY NOT NULL, usd REAL NOT NULL) STRICT, WITHOUT ROWID;)"};

namespace {

size_t bytes_of(const LedgerRow& row) {
  return sizeof row + row.request_id.size() + row.key.size() + row.model.size() + row.endpoint.size() +
         row.finish_reason.size() + row.request_text.size() + row.answer_text.size();
}

}  // namespace

Result<std::unique_ptr<Ledger>> Ledger::open(const LedgerSettings& settings) {
  FATHOM_TRY(Database database, Database::open(settings.file, kLedgerFormat, Database::Mode::kCreate, /*wal=*/true));
  auto ledger = std::unique_ptr<Ledger>(new Ledger(settings, std::move(database)));
  FATHOM_RETURN_IF_ERROR(ledger->read_spent());
  // Fails now, not with the first row, where nothing can be written.
  FATHOM_RETURN_IF_ERROR(ledger->database_.transact([] { return Status{}; }));
  // The process's signals are for its main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  ledger->writer_ = std::thread([raw = ledger.get()] { raw->write_rows(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return ledger;
}

Ledger::Ledger(const LedgerSettings& settings, Database database)
    : settings_(settings), database_(std::move(database)) {}

Ledger::~Ledger() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  if (writer_.joinable()) writer_.join();
}

Status Ledger::read_spent() {
  FATHOM_TRY(Statement rows, database_.prepare("SELECT key, usd FROM spent"));
  while (true) {
    FATHOM_TRY(const bool more, rows.next());
    if (!more) return {};
    stored_[rows.text(0)] = rows.real(1);
  }
}

void Ledger::add(LedgerRow row) {
  FATHOM_CHECK(std::isfinite(row.price_usd) && row.price_usd >= 0, "price of request {}: {}", row.request_id,
               row.price_usd);
  if (!settings_.text) {
    row.request_text = {};
    row.answer_text = {};
  }
  const size_t bytes = bytes_of(row);
  {
    const std::lock_guard lock(mutex_);
    unsaved_[row.key] += row.price_usd;
    if (bytes_ + bytes <= settings_.queue_bytes) {
      bytes_ += bytes;
      queue_.push_back(std::move(row));
    } else {
      ++stats_.dropped;
    }
  }
  work_.notify_one();
}

double Ledger::spent_usd(std::string_view key) const {
  const std::lock_guard lock(mutex_);
  double usd = 0;
  for (const Spent* part : {&stored_, &saving_, &unsaved_})
    if (const auto place = part->find(key); place != part->end()) usd += place->second;
  return usd;
}

bool Ledger::flush(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, wait, [&] { return unsaved_.empty() && !busy_; });
}

LedgerStats Ledger::stats() const {
  const std::lock_guard lock(mutex_);
  LedgerStats stats = stats_;
  stats.queued = static_cast<int64_t>(queue_.size()) + writing_;
  return stats;
}

void Ledger::write_rows() {
  std::vector<LedgerRow> rows;  // that are to be written next; those that could not be stay first
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return stopping_ || busy_ || !unsaved_.empty(); });
    if (!busy_ && unsaved_.empty()) return;
    busy_ = true;
    rows.insert(rows.end(), std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
    queue_.clear();
    writing_ = static_cast<int64_t>(rows.size());
    for (const auto& [key, usd] : std::exchange(unsaved_, {})) saving_[key] += usd;
    const Spent saving = saving_;
    Spent stored;
    lock.unlock();
    const Status status = write(rows, saving, stored);
    lock.lock();
    if (status) {
      stats_.written += writing_;
      for (const auto& [key, usd] : stored) stored_[key] = usd;
      saving_.clear();
    } else {
      ++stats_.errors;
      stats_.last_error = status.error().message;
      if (!stopping_) {
        work_.wait_for(lock, settings_.retry, [&] { return stopping_; });
        continue;  // once more, also when it is the end
      }
      stats_.dropped += writing_;
    }
    for (const LedgerRow& row : rows) bytes_ -= bytes_of(row);
    rows.clear();
    writing_ = 0;
    busy_ = false;
    idle_.notify_all();
  }
}

Status Ledger::write(const std::vector<LedgerRow>& rows, const Spent& saving, Spent& stored) {
  FATHOM_RETURN_IF_ERROR(database_.check_in_place());
  return database_.transact([&]() -> Status {
    FATHOM_TRY(Statement insert,
               database_.prepare("INSERT INTO requests VALUES "
                                 "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    const auto kept = [&](const std::string& text) { return settings_.text ? std::optional(text) : std::nullopt; };
    for (const LedgerRow& r : rows)
      FATHOM_RETURN_IF_ERROR(insert.run(r.time_ms, r.request_id, r.key, r.model, r.endpoint, r.status, r.aborted,
                                        r.finish_reason, r.usage.prompt_tokens, r.usage.cached_tokens,
                                        r.usage.completion_tokens, r.usage.reasoning_tokens, r.choices, r.drafted,
                                        r.accepted, r.queue_ms, r.first_token_ms, r.first_answer_ms, r.total_ms,
                                        r.price_usd, kept(r.request_text), kept(r.answer_text)));
    FATHOM_TRY(Statement count, database_.prepare("INSERT INTO spent VALUES (?, ?) ON CONFLICT (key) DO UPDATE "
                                                  "SET usd = usd + excluded.usd RETURNING usd"));
    for (const auto& [key, usd] : saving) {
      count.bind(key, usd);
      FATHOM_TRY(const bool there, count.next());
      FATHOM_CHECK(there, "no sum for key {}", key);
      stored[key] = count.real(0);
      FATHOM_TRY(const bool more, count.next());
      FATHOM_CHECK(!more, "two sums for key {}", key);
    }
    return {};
  });
}

}  // namespace fathom
