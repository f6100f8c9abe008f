// Schemas and documents judged by an independent validator (make_corpus.py): the grammar gives the same verdicts.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "grammar/grammar.h"

namespace fathom {
namespace {

TEST(GrammarCorpus, SameVerdictAsValidator) {
  std::ifstream file(FATHOM_TEST_DATA "/../grammar/corpus.jsonl");
  ASSERT_TRUE(file.is_open());
  size_t good = 0, bad = 0, wrong = 0;
  for (std::string line; std::getline(file, line) && wrong < 20;) {
    const Json entry = Json::parse(line);
    const auto grammar = Grammar::json_schema(entry["schema"]);
    if (!grammar && entry["good"].empty() && grammar.error().message.find("no document fulfils") != std::string::npos) {
      bad += entry["bad"].size();  // rightly refused
      continue;
    }
    if (!grammar) {
      ADD_FAILURE() << entry["schema"] << "\n" << grammar.error().message;
      ++wrong;
      continue;
    }
    for (const bool expected : {true, false}) {
      for (const Json& document : entry[expected ? "good" : "bad"]) {
        ++(expected ? good : bad);
        // Compact, on one line as Python writes it, and indented.
        for (const std::string& text : {document.dump(), dump_json(document), document.dump(2), document.dump(4)}) {
          if ((*grammar)->accepts(text) == expected) continue;
          ADD_FAILURE() << entry["schema"] << "\n" << text << "\nexpected " << expected;
          ++wrong;
        }
      }
    }
  }
  EXPECT_GE(good, 2000u);
  EXPECT_GE(bad, 2000u);
}

}  // namespace
}  // namespace fathom
