// From a JSON Schema to the nodes of a grammar. docs/structured-output.md lists the keywords.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/result.h"
#include "grammar/node.h"
#include "text/json.h"

namespace fathom {

// Sets of types, as bits. JSON Schema's "number" is an integer or a fraction.
namespace json_types {
inline constexpr uint8_t kNull = 1, kBoolean = 2, kInteger = 4, kFraction = 8, kNumber = 12, kString = 16, kArray = 32,
                         kObject = 64, kAll = 127;
}  // namespace json_types

// Problems do not stop it: they are gathered, and finish() returns them all.
class SchemaCompiler {
 public:
  // `path` names the schema in messages. never_raw: see TextDecoder. `schema` has to live as long.
  SchemaCompiler(NodePool& nodes, const Json& schema, std::string path, std::u32string_view never_raw);

  // A document of one of these types.
  const Node* value(uint8_t types) { return compile(schema_, path_, types, Form::kJson); }
  // A call's parameters in kDsml's markup: the members of an object. The schema is that of an object, and nothing else.
  const Node* dsml_parameters();
  // Once all nodes are asked for: makes what references lead to.
  Status finish();

  // The spelling of a string in the document, quotes included.
  std::string json_string(std::string_view text) const;

 private:
  // kRaw: strings without quotes and escapes, as kDsml's parameters have them.
  enum class Form : uint8_t { kJson, kRaw };
  static constexpr size_t kMaxProblems = 20;
  static constexpr int kMaxSchemaDepth = 200;

  // A keyword whose value has the wrong form is a problem, and reads as absent.
  struct Strings {
    const Json* pattern = nullptr;
    const Json* format = nullptr;
    uint32_t at_least = 0, at_most = kUnlimited;
  };

  const Node* compile(const Json& schema, const std::string& path, uint8_t types, Form form);
  const Node* compile_types(const Json& schema, const std::string& path, uint8_t types, Form form);
  const Node* any_of(const Json& schema, const std::string& path, uint8_t types, Form form);
  const Node* refer(const Json& schema, const std::string& path, uint8_t types, Form form);
  const Node* listed(const Json& schema, const std::string& path, uint8_t types, Form form);
  const Node* constant(const Json& value, const std::string& path);
  const Node* string(const Json& schema, const std::string& path, Form form);
  const Node* number(const Json& schema, const std::string& path, bool integer);
  const Node* array(const Json& schema, const std::string& path);
  const Node* object(const Json& schema, const std::string& path, Form form);
  // Any value: a rule of its own, since it is recursive.
  const Node* anything(uint8_t types, Form form);

  const Node* member(std::string_view name, const Json& schema, const std::string& path, Form form);
  const Node* other_member(const std::vector<std::string>& names, const Json& schema, const std::string& path,
                           Form form);

  // Of the keywords that apply to a type; null when they are wrong.
  std::shared_ptr<const TextProgram> text_program(const Strings& strings, const std::string& path, Form form,
                                                  uint32_t& at_least, uint32_t& at_most);
  // None when something is wrong with them, which is a problem then.
  std::optional<TextDfa> text_dfa(const Strings& strings, const std::string& path, bool with_lengths, Form form);
  bool take_work(size_t work, const std::string& path);
  Strings string_keywords(const Json& schema, const std::string& path);
  bool number_range(const Json& schema, const std::string& path, struct NumberRange& range);
  uint8_t declared_types(const Json& schema, const std::string& path);
  uint32_t count(const Json& schema, const std::string& path, const char* keyword, uint32_t otherwise);

  void check_keywords(const Json& schema, const std::string& path);
  bool only_beside(const Json& schema, const std::string& path, std::string_view keyword);
  void problem(const std::string& path, std::string_view what);
  const Json* resolve(std::string_view pointer) const;

  const Node* white_space();
  const Node* comma();

  NodePool& nodes_;
  const Json& schema_;
  const std::string path_;
  const std::u32string_view never_raw_;

  std::vector<std::string> problems_;
  std::set<std::string> known_problems_;
  std::set<std::string> checked_;

  struct Pending {
    Node* reference;
    const Json* schema;
    std::string path;
    uint8_t types;
    Form form;
  };
  std::deque<Pending> pending_;
  std::map<std::tuple<const Json*, uint8_t, Form>, const Node*> references_;
  std::map<std::tuple<std::string, std::string, uint32_t, uint32_t, Form>, std::shared_ptr<const TextProgram>>
      programs_;
  size_t work_left_ = grammar_limits::kMaxSchemaWork;
  int depth_ = 0;
  const Node* white_space_ = nullptr;
  const Node* comma_ = nullptr;
};

// "$.properties.name": `key` below `path`.
std::string schema_path(const std::string& path, std::string_view key);

}  // namespace fathom
