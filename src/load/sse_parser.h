// Server-sent events as the WHATWG standard reads them, from bytes that arrive in any pieces. Beside the events it reports
// every deviation from the strict form that a careful server writes: UTF-8, lines that all end alike, "field: value" with
// a known field, one blank line after each event, the last one included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fathom::load {

struct SseEvent {
  std::string type;  // "message" where the stream names none
  std::string data;  // its lines with '\n' between
};

enum class SseDeviation : uint8_t {
  kByteOrderMark,
  kMixedLineEnds,  // LF, CR and CRLF in one stream
  kInvalidUtf8,    // in a line
  kUnknownField,   // a line that begins with none of data, event, id, retry
  kFieldWithoutColon,
  kNoSpaceAfterColon,
  kBadRetry,          // not a number of milliseconds
  kZeroInId,          // the id is ignored
  kExtraBlankLine,    // after a blank line, or first of all
  kEventWithoutData,  // an event that readers drop
  kUnfinishedLine,    // the stream ends within a line
  kUnfinishedEvent,   // the stream ends without the blank line after its last event, which readers drop
};
std::string_view name_of(SseDeviation deviation);

struct SseFinding {
  SseDeviation deviation;
  int64_t line;  // of the first, from 1
  int64_t count;
};

struct SseLimits {
  size_t line_bytes = size_t{4} << 20;
  size_t event_bytes = size_t{16} << 20;  // of an event's data
};

// Not thread-safe. Memory: one event.
class SseParser {
 public:
  explicit SseParser(const SseLimits& limits = {}) : limits_(limits) {}

  // Appends the events that `bytes` complete. Fails where a limit is exceeded, then and ever after.
  Status feed(std::string_view bytes, std::vector<SseEvent>& events);
  // The stream ended: what is unfinished is a deviation.
  void finish();

  const std::vector<SseFinding>& findings() const { return findings_; }
  int64_t comments() const { return comments_; }  // lines that begin with a colon, keep-alives mostly
  const std::string& last_event_id() const { return id_; }

 private:
  enum class LineEnd : uint8_t { kNone, kLf, kCr, kCrLf };

  void found(SseDeviation deviation);
  void see_line_end(LineEnd end);
  Status take_line(std::vector<SseEvent>& events);
  void blank_line(std::vector<SseEvent>& events);
  Status field(std::string_view name, std::string_view value);

  SseLimits limits_;
  std::vector<SseFinding> findings_;
  std::string line_, type_, data_, id_;
  int64_t line_number_ = 1, comments_ = 0;
  LineEnd line_end_ = LineEnd::kNone;  // of all lines so far
  bool after_cr_ = false;              // an LF would belong to the line end before
  bool has_data_ = false;              // since the last blank line, as the next ones
  bool has_fields_ = false;
  bool after_blank_ = true;
  bool failed_ = false;
};

}  // namespace fathom::load
