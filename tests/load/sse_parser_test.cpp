// Server-sent events: what is read, whatever the pieces, and what deviates from the strict form.
#include "load/sse_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/random.h"

namespace fathom::load {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Read {
  std::vector<std::string> events;    // "type|data"
  std::vector<std::string> findings;  // "name @ line × count"
  std::string id;
  int64_t comments = 0;
};

// size: of the pieces.
Read read(std::string_view bytes, const std::function<size_t()>& size) {
  SseParser parser;
  std::vector<SseEvent> events;
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, size());
    bytes.remove_prefix(piece.size());
    EXPECT_TRUE(parser.feed(piece, events).has_value());
  }
  parser.finish();
  Read out{{}, {}, parser.last_event_id(), parser.comments()};
  for (const SseEvent& e : events) out.events.push_back(e.type + "|" + e.data);
  for (const SseFinding& f : parser.findings())
    out.findings.push_back(fmt::format("{} @ {} × {}", name_of(f.deviation), f.line, f.count));
  return out;
}

Read read(std::string_view bytes) {
  return read(bytes, [&] { return bytes.size(); });
}

TEST(SseParser, ReadsAStrictStream) {
  const Read r =
      read("data: {\"a\": 1}\n\n: keep-alive\n\nevent: error\nid: 7\nretry: 100\ndata: x\ndata: y\n\ndata: [DONE]\n\n");
  EXPECT_THAT(r.events, ElementsAre("message|{\"a\": 1}", "error|x\ny", "message|[DONE]"));
  EXPECT_THAT(r.findings, IsEmpty());
  EXPECT_EQ(r.id, "7");
  EXPECT_EQ(r.comments, 1);
}

TEST(SseParser, TakesEveryLineEndAndKeepsOneSpaceOnlyAway) {
  for (const std::string end : {"\n", "\r", "\r\n"}) {
    const Read r = read("data:  two" + end + "data" + end + "data: " + end + end);
    EXPECT_THAT(r.events, ElementsAre("message| two\n\n"));
    EXPECT_THAT(r.findings, ElementsAre("field without a colon @ 2 × 1"));
  }
}

TEST(SseParser, ReportsEachDeviation) {
  const auto findings = [](std::string_view bytes) { return read(bytes).findings; };
  EXPECT_THAT(findings("\xEF\xBB\xBF"
                       "data: a\n\n"),
              ElementsAre("byte order mark @ 1 × 1"));
  EXPECT_THAT(findings("data: a\r\n\n"), ElementsAre("mixed line ends @ 2 × 1"));
  EXPECT_THAT(findings("data: a\r\n\r"), ElementsAre("mixed line ends @ 3 × 1")) << "seen when the stream ends";
  EXPECT_THAT(findings("data: \xC3\n\n"), ElementsAre("invalid UTF-8 @ 1 × 1"));
  EXPECT_THAT(findings("Data: a\ndata: a\n\n"), ElementsAre("unknown field @ 1 × 1"));
  EXPECT_THAT(findings("data:a\ndata:b\n\n"), ElementsAre("no space after the colon @ 1 × 2"));
  EXPECT_THAT(findings("retry: soon\n\n"), ElementsAre("retry is not a number @ 1 × 1"));
  EXPECT_THAT(findings(std::string_view("id: a\0b\n\n", 9)), ElementsAre("zero byte in an id @ 1 × 1"));
  EXPECT_THAT(findings("data: a\n\n\n"), ElementsAre("blank line without an event @ 3 × 1"));
  EXPECT_THAT(findings("\ndata: a\n\n"), ElementsAre("blank line without an event @ 1 × 1"));
  EXPECT_THAT(findings("event: a\n\n"), ElementsAre("event without data @ 2 × 1"));
  EXPECT_THAT(findings("data: a\n"), ElementsAre("no blank line after the last event @ 2 × 1"));
  EXPECT_THAT(findings("data: a"),
              ElementsAre("ends within a line @ 1 × 1", "no blank line after the last event @ 1 × 1"));
}

TEST(SseParser, DropsAnEventThatIsNotEnded) {
  EXPECT_THAT(read("data: a\n\ndata: b\n").events, ElementsAre("message|a"));
  EXPECT_THAT(read("data: a\n\ndata: b").events, ElementsAre("message|a"));
}

TEST(SseParser, ReadsTheSameInAnyPieces) {
  TestRandom random(5);
  const std::vector<std::string> parts = {"data",         ":",        " ", "\n",   "\r",  "\r\n",         "\n\n",
                                          "event: a",     "id: 1",    "é", "\xC3", ": x", "\xEF\xBB\xBF", "retry: 1",
                                          "data: [DONE]", "\r\n\r\n", "zz"};
  for (int i = 0; i < 3000; ++i) {
    std::string bytes;
    for (int64_t n = random.below(12); n >= 0; --n)
      bytes += parts[static_cast<size_t>(random.below(static_cast<int64_t>(parts.size())))];
    const Read whole = read(bytes);
    for (const bool single : {true, false}) {
      const Read cut = read(bytes, [&] { return single ? size_t{1} : static_cast<size_t>(1 + random.below(7)); });
      ASSERT_EQ(cut.events, whole.events) << testing::PrintToString(bytes);
      ASSERT_EQ(cut.findings, whole.findings) << testing::PrintToString(bytes);
      ASSERT_EQ(cut.id, whole.id);
      ASSERT_EQ(cut.comments, whole.comments);
    }
  }
}

TEST(SseParser, RefusesLongLinesAndEventsForGood) {
  const SseLimits limits{.line_bytes = 10, .event_bytes = 12};
  std::vector<SseEvent> events;
  SseParser line(limits);
  EXPECT_TRUE(line.feed("data: 1234\n\n", events));
  EXPECT_TRUE(line.feed("data: 12345678901", events).error().message.find("line 3") != std::string::npos);
  EXPECT_FALSE(line.feed("\n", events));
  SseParser pieces(limits);
  EXPECT_TRUE(pieces.feed("data: 1234", events));
  EXPECT_FALSE(pieces.feed("5", events));
  SseParser event(limits);
  EXPECT_TRUE(event.feed("data: 1234\ndata: 1234\n", events));
  const Status status = event.feed("data: 1234\n", events);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("12 bytes"));
  EXPECT_EQ(events.size(), 1u);
}

}  // namespace
}  // namespace fathom::load
