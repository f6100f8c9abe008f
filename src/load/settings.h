// What a load test asks for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/json.h"

namespace fathom::load {

enum class WorkloadKind : uint8_t {
  kFixed,          // prompts and answers of one length
  kRandom,         // lengths drawn around means
  kConversations,  // several turns: the history grows with the server's answers
  kLong,           // a question after a long document
  kFile,           // bodies from a file
};

struct WorkloadSettings {
  WorkloadKind kind = WorkloadKind::kFixed;
  // Of the text that a request adds: the user's message, the document. What the server's template adds is not in it.
  int64_t prompt_tokens = 512;
  int64_t output_tokens = 128;  // the limit of an answer; 0: none is sent
  double spread = 0.5;  // kRandom, of both lengths: half the width of the uniform draw, or the deviation, over the mean
  bool normal = false;  // kRandom: normally instead of uniformly
  int64_t system_tokens = 0;  // of a system message that all requests begin with; 0: none
  int64_t turns = 4;          // kConversations
  double pause_s = 0;         // kConversations: between an answer and the next turn
  int64_t documents = 0;      // kLong: so many different ones, asked about again and again; 0: each request its own
  // kFile: JSON lines, each a body (with "messages" or "prompt"), an array of messages, or a line of a batch file, whose
  // "body" is taken. Read again from the start when it ends.
  std::filesystem::path file{};
  uint64_t seed = 1;  // same seed and settings: same requests
};

enum class Endpoint : uint8_t { kChat, kCompletions };

// Members of every body. What a file's line says itself stays, but for the model.
struct RequestSettings {
  Endpoint endpoint = Endpoint::kChat;
  std::string model;             // empty: the first that the server lists
  std::optional<bool> thinking;  // "thinking": {"type": "enabled" | "disabled"}
  bool ignore_eos = true;        // answers of exactly the length asked for, from servers that know it
  std::optional<double> temperature;
  std::optional<int64_t> seed;  // of the server's sampling
  Json extra = Json::object();  // merged into the body (RFC 7396: null removes)
};

// Most milliseconds; a request that has no such time (one token: no TPOT) is within.
struct GoodputLimits {
  std::optional<double> ttft_ms{}, first_answer_ms{}, tpot_ms{}, e2e_ms{};
  bool any() const { return ttft_ms || first_answer_ms || tpot_ms || e2e_ms; }
};
// "ttft:500,tpot:50"; names: ttft, first_answer, tpot, e2e.
Result<GoodputLimits> parse_goodput(std::string_view text);

struct LoadSettings {
  std::string url, api_key;
  bool insecure = false;   // TLS: certificates are not verified
  double timeout_s = 600;  // of a request, from its start to its end
  WorkloadSettings workload;
  RequestSettings request;
  // Requests per second, their times Poisson's; infinite: all at once. Without: closed loop, `concurrency` clients that
  // each send the next request when the last one has ended.
  std::optional<double> rate;
  int64_t concurrency = 4;
  // Ends after so many requests or seconds, whichever comes first; at least one of them. What runs by then is waited for.
  std::optional<int64_t> requests;
  std::optional<double> duration_s;
  int64_t warmup = 0;  // requests before, that count for nothing
  GoodputLimits goodput;
  bool keep_texts = false;  // of the answers, in the report's requests
};
// All problems at once.
Status check_settings(const LoadSettings& settings);

// "512 tokens in, 128 out", "Poisson, 4 requests/s"
std::string describe_workload(const WorkloadSettings& settings);
std::string describe_arrivals(const LoadSettings& settings);

}  // namespace fathom::load
