// What a server says of itself: a line for each request, for people or for programs.
#pragma once

#include <memory>
#include <string>

#include "serve/ledger.h"

namespace spdlog {
class logger;
}

namespace fathom {

// Writes to stderr, by a thread of its own: when no one reads it, the oldest lines are dropped and no request waits. What was
// asked and answered is never in it. Thread-safe.
class RequestLog {
 public:
  // json: each line is an object.
  explicit RequestLog(bool json);

  void request(const LedgerRow& row, const std::string& peer);
  void warn(const std::string& message);

 private:
  const bool json_;
  std::shared_ptr<spdlog::logger> log_;
};

}  // namespace fathom
