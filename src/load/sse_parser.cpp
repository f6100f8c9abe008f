#include "load/sse_parser.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace fathom::load {

std::string_view name_of(SseDeviation deviation) {
  switch (deviation) {
    case SseDeviation::kByteOrderMark:
      return "byte order mark";
    case SseDeviation::kMixedLineEnds:
      return "mixed line ends";
    case SseDeviation::kInvalidUtf8:
      return "invalid UTF-8";
    case SseDeviation::kUnknownField:
      return "unknown field";
    case SseDeviation::kFieldWithoutColon:
      return "field without a colon";
    case SseDeviation::kNoSpaceAfterColon:
      return "no space after the colon";
    case SseDeviation::kBadRetry:
      return "retry is not a number";
    case SseDeviation::kZeroInId:
      return "zero byte in an id";
    case SseDeviation::kExtraBlankLine:
      return "blank line without an event";
    case SseDeviation::kEventWithoutData:
      return "event without data";
    case SseDeviation::kUnfinishedLine:
      return "ends within a line";
    case SseDeviation::kUnfinishedEvent:
      return "no blank line after the last event";
  }
  return "";
}

void SseParser::found(SseDeviation deviation) {
  const auto same = std::ranges::find(findings_, deviation, &SseFinding::deviation);
  if (same != findings_.end())
    ++same->count;
  else
    findings_.push_back({deviation, line_number_, 1});
}

void SseParser::see_line_end(LineEnd end) {
  if (line_end_ == LineEnd::kNone) line_end_ = end;
  if (line_end_ != end) found(SseDeviation::kMixedLineEnds);
}

Status SseParser::feed(std::string_view bytes, std::vector<SseEvent>& events) {
  if (failed_) return fail("event stream: more bytes after the one that was refused");
  for (size_t at = 0; at < bytes.size();) {
    if (std::exchange(after_cr_, false)) {
      see_line_end(bytes[at] == '\n' ? LineEnd::kCrLf : LineEnd::kCr);
      if (bytes[at] == '\n') {
        ++at;
        continue;
      }
    }
    const size_t end = bytes.find_first_of("\r\n", at);
    const size_t size = std::min(end, bytes.size()) - at;
    if (size > limits_.line_bytes - line_.size()) {
      failed_ = true;
      return fail("event stream: line {} is longer than the {} bytes that are read", line_number_, limits_.line_bytes);
    }
    line_.append(bytes, at, size);
    if (end == std::string_view::npos) break;
    after_cr_ = bytes[end] == '\r';
    if (!after_cr_) see_line_end(LineEnd::kLf);
    if (Status status = take_line(events); !status) {
      failed_ = true;
      return status;
    }
    at = end + 1;
  }
  return {};
}

Status SseParser::take_line(std::vector<SseEvent>& events) {
  std::string_view line = line_;
  if (line_number_ == 1 && line.starts_with("\xEF\xBB\xBF")) {
    found(SseDeviation::kByteOrderMark);
    line.remove_prefix(3);
  }
  if (utf8_valid_prefix(line) != line.size()) found(SseDeviation::kInvalidUtf8);
  Status status;
  if (line.empty()) {
    blank_line(events);
  } else {
    after_blank_ = false;
    const size_t colon = line.find(':');
    if (colon == 0) {
      ++comments_;
    } else if (colon == std::string_view::npos) {
      found(SseDeviation::kFieldWithoutColon);
      status = field(line, "");
    } else {
      std::string_view value = line.substr(colon + 1);
      if (value.starts_with(' '))
        value.remove_prefix(1);
      else if (!value.empty())
        found(SseDeviation::kNoSpaceAfterColon);
      status = field(line.substr(0, colon), value);
    }
  }
  line_.clear();
  ++line_number_;
  return status;
}

void SseParser::blank_line(std::vector<SseEvent>& events) {
  if (has_data_)
    events.push_back({type_.empty() ? "message" : std::move(type_), std::move(data_)});
  else if (has_fields_)
    found(SseDeviation::kEventWithoutData);
  else if (after_blank_)
    found(SseDeviation::kExtraBlankLine);
  type_.clear();
  data_.clear();
  has_data_ = has_fields_ = false;
  after_blank_ = true;
}

Status SseParser::field(std::string_view name, std::string_view value) {
  if (name == "data") {
    if (value.size() + 1 > limits_.event_bytes - std::min(limits_.event_bytes, data_.size())) {
      return fail("event stream: the data of the event that ends in line {} is longer than the {} bytes that are read",
                  line_number_, limits_.event_bytes);
    }
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = has_fields_ = true;
  } else if (name == "event") {
    type_ = value;
    has_fields_ = true;
  } else if (name == "id") {
    if (value.find('\0') != std::string_view::npos)
      found(SseDeviation::kZeroInId);
    else
      id_ = value;
  } else if (name == "retry") {
    if (value.empty() || value.find_first_not_of("0123456789") != std::string_view::npos)
      found(SseDeviation::kBadRetry);
  } else {
    found(SseDeviation::kUnknownField);
  }
  return {};
}

void SseParser::finish() {
  if (std::exchange(after_cr_, false)) see_line_end(LineEnd::kCr);
  if (!line_.empty()) found(SseDeviation::kUnfinishedLine);
  if (!line_.empty() || has_fields_) found(SseDeviation::kUnfinishedEvent);
  line_.clear();
  data_.clear();
  type_.clear();
  has_data_ = has_fields_ = false;
}

}  // namespace fathom::load
