// The marks of the chat formats, as they stand in text.
#pragma once

#include <string_view>

namespace fathom::chat_tokens {

inline constexpr std::string_view kBeginOfSentence = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEndOfSentence = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kUser = "<｜User｜>";
inline constexpr std::string_view kAssistant = "<｜Assistant｜>";
inline constexpr std::string_view kThink = "<think>";
inline constexpr std::string_view kEndThink = "</think>";

// Fill in the middle.
inline constexpr std::string_view kFimBegin = "<｜fim▁begin｜>";
inline constexpr std::string_view kFimHole = "<｜fim▁hole｜>";
inline constexpr std::string_view kFimEnd = "<｜fim▁end｜>";

// V3.1
inline constexpr std::string_view kToolCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kToolCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kToolCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kToolCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kToolSep = "<｜tool▁sep｜>";
inline constexpr std::string_view kToolOutputBegin = "<｜tool▁output▁begin｜>";
inline constexpr std::string_view kToolOutputEnd = "<｜tool▁output▁end｜>";

// V3.2
inline constexpr std::string_view kDsml = "｜DSML｜";
inline constexpr std::string_view kFunctionCalls = "<｜DSML｜function_calls>";
inline constexpr std::string_view kEndFunctionCalls = "</｜DSML｜function_calls>";
inline constexpr std::string_view kInvoke = "<｜DSML｜invoke";  // then ` name="…">`
inline constexpr std::string_view kEndInvoke = "</｜DSML｜invoke>";
inline constexpr std::string_view kParameter = "<｜DSML｜parameter";  // then ` name="…" string="true|false">`
inline constexpr std::string_view kEndParameter = "</｜DSML｜parameter>";

}  // namespace fathom::chat_tokens
