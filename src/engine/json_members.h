// Structures as JSON objects, and back. A structure's members are named once, by a function beside it that both use:
//
//   template <typename Visitor>
//   void fields(Visitor& v, Point& p) { v("x", p.x); v("y", p.y); }
//
// Members are texts, booleans, numbers from 0, structures with such a function, and optional ones (null) and vectors of
// them.
#pragma once

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/quote.h"
#include "checkpoint/problems.h"
#include "text/json.h"

namespace fathom {

class FieldWriter {
 public:
  template <typename T>
  void operator()(std::string_view name, T& value) {
    json_[std::string(name)] = write(value);
  }
  template <typename T>
  static Json write(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else {
      FieldWriter writer;
      fields(writer, value);
      return std::move(writer.json_);
    }
  }

 private:
  template <typename T>
  static Json write(std::optional<T>& value) {
    return value ? write(*value) : Json();
  }
  template <typename T>
  static Json write(std::vector<T>& values) {
    Json array = Json::array();
    for (T& value : values) array.push_back(write(value));
    return array;
  }
  Json json_ = Json::object();
};

class FieldReader {
 public:
  FieldReader(const nlohmann::json& json, std::string path, Problems& problems)
      : json_(json), path_(std::move(path)), problems_(problems) {}

  template <typename T>
  void operator()(std::string_view name, T& value) {
    const std::string path = path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
    const auto it = json_.find(name);
    if (it == json_.end())
      problems_.add("{}: missing", path);
    else
      read(*it, path, value);
  }

  template <typename T>
  void read(const nlohmann::json& json, const std::string& path, T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      if (json.is_string())
        value = json.get<std::string>();
      else
        wrong(json, path, "text");
    } else if constexpr (std::is_same_v<T, bool>) {
      if (json.is_boolean())
        value = json.get<bool>();
      else
        wrong(json, path, "true or false");
    } else if constexpr (std::is_floating_point_v<T>) {
      if (json.is_number() && json.get<double>() >= 0)
        value = json.get<double>();
      else
        wrong(json, path, "a number from 0");
    } else if constexpr (std::is_integral_v<T>) {
      if (json.is_number_unsigned() && json.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<T>::max()))
        value = json.get<T>();
      else
        wrong(json, path, "a whole number from 0");
    } else if (json.is_object()) {
      FieldReader reader(json, path, problems_);
      fields(reader, value);
    } else {
      wrong(json, path, "an object");
    }
  }

 private:
  template <typename T>
  void read(const nlohmann::json& json, const std::string& path, std::optional<T>& value) {
    if (!json.is_null()) read(json, path, value.emplace());
  }
  template <typename T>
  void read(const nlohmann::json& json, const std::string& path, std::vector<T>& values) {
    if (!json.is_array()) return wrong(json, path, "an array");
    for (size_t i = 0; i < json.size(); ++i) read(json[i], fmt::format("{}[{}]", path, i), values.emplace_back());
  }
  void wrong(const nlohmann::json& json, const std::string& path, std::string_view expected) {
    problems_.add("{}: found {}, expected {}", path,
                  in_quotes(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)), expected);
  }

  const nlohmann::json& json_;
  std::string path_;
  Problems& problems_;
};

template <typename T>
Json json_from_fields(const T& value) {
  T copy = value;  // fields() is written for readers too, and takes no const
  return FieldWriter::write(copy);
}

// Every member must be there; more than that may be. Problems name the member: "run.batch: missing".
template <typename T>
void read_fields(const nlohmann::json& json, std::string_view path, T& value, Problems& problems) {
  FieldReader(json, std::string(path), problems).read(json, std::string(path), value);
}

}  // namespace fathom
