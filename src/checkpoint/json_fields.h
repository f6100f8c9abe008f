// The fields of a JSON object that a user wrote: each is read with what it may be, and all that is wrong is gathered.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "checkpoint/problems.h"

namespace fathom {

// The value as it stands in the file, cut when long.
std::string shown_json(const nlohmann::json& value);

// Each method reports what is wrong and then returns its fallback; `good` tells later checks whether the values they
// compare can be believed. Null stands for absent. The object must outlive this.
class JsonFields {
 public:
  // prefix: put before names in messages, "stages[2].".
  JsonFields(const nlohmann::json& object, std::string prefix, Problems& problems)
      : object_(object), prefix_(std::move(prefix)), problems_(problems) {}

  const nlohmann::json* find(const char* name) const;  // null when absent
  bool has(const char* name) const { return find(name) != nullptr; }
  bool good(std::initializer_list<const char*> names) const;
  const std::string& prefix() const { return prefix_; }

  // Without a fallback the field is required.
  int64_t integer(const char* name, int64_t least, int64_t most, std::optional<int64_t> fallback = std::nullopt);
  // least < value ≤ most, or ≤ on both sides when `closed`.
  double number(const char* name, double least, double most, bool closed, std::optional<double> fallback);
  bool boolean(const char* name, bool fallback);
  std::string text(const char* name, std::optional<std::string> fallback = std::nullopt);
  // One of these words; the first is the fallback of an optional field.
  std::string word(const char* name, std::initializer_list<const char*> words, bool required);
  // Null when absent or no object.
  const nlohmann::json* object(const char* name, bool required);
  // Absent, or exactly this value; any other is a variant of the model that is refused, with the reason.
  void only(const char* name, const nlohmann::json& wanted, const char* why);

  void missing(const char* name, const std::string& expected);
  void found(const char* name, const nlohmann::json& value, const std::string& expected);

  // To be called last: reports every field that was never asked for. A misspelt option must not be a silent default.
  void refuse_others();

 private:
  const nlohmann::json& object_;
  std::string prefix_;
  Problems& problems_;
  std::set<std::string, std::less<>> bad_;
  mutable std::set<std::string, std::less<>> asked_;
};

}  // namespace fathom
