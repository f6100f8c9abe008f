// What is written under a grammar, token by token, is judged by python3-jsonschema (judge.py), for every schema of the corpus:
// whole documents fit; those that end early, as max_tokens ends them, do not, and the matcher says so.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "grammar/walk.h"
#include "support/temp_dir.h"
#include "text/utf8.h"

namespace fathom {
namespace {

// Random documents for each schema, with a random beginning of each. Returns how many there are: whole, cut.
std::pair<size_t, size_t> write_documents(const std::filesystem::path& file) {
  TestRandom random(8);
  std::ifstream corpus(FATHOM_TEST_DATA "/../grammar/corpus.jsonl");
  std::ofstream written(file);
  size_t schemas = 0, whole = 0, cut = 0;
  for (std::string line; std::getline(corpus, line);) {
    const Json schema = Json::parse(line)["schema"];
    const auto grammar = Grammar::json_schema(schema);
    if (!grammar) continue;  // no document fulfils it: corpus_test.cpp
    Json out = {{"schema", schema}, {"whole", Json::array()}, {"cut", Json::array()}};
    ++schemas;
    // Patterns are fulfilled with characters that they name.
    std::vector<std::string> closing;
    const std::string spelled = schema.dump();
    for (size_t at = 0; at < spelled.size();) {
      const size_t size = utf8_step(std::string_view(spelled).substr(at)).size;
      closing.push_back(spelled.substr(at, size));
      closing.push_back(kClosing[at % kClosing.size()]);
      at += size;
    }
    for (int i = 0; i < 5; ++i) {
      // The published vocabulary, whose tokens are long, now and then: it takes its time.
      const auto& table = i == 0 && schemas % 10 == 0 ? published().table : small().table;
      GrammarMatcher matcher(*grammar, table);
      std::string beginning;
      bool complete = false;
      int64_t seen = 0;
      const auto look = [&](const GrammarMatcher& now, std::string_view text) {
        if (random.below(++seen) > 0) return;  // each is as likely
        beginning = text.substr(0, utf8_valid_prefix(text));
        complete = now.complete();
      };
      std::string text = walk(matcher, *table, random, 20, look, closing);
      if (matcher.complete()) out["whole"].push_back(std::move(text));  // some patterns are hardly met by chance
      out[complete ? "whole" : "cut"].push_back(beginning);
    }
    whole += out["whole"].size(), cut += out["cut"].size();
    written << out.dump() << "\n";
  }
  written.close();
  EXPECT_TRUE(written) << "cannot write " << file;
  return {whole, cut};
}

TEST(GrammarValidator, WhatIsWrittenFitsAndWhatIsCutDoesNot) {
  const TempDir folder;
  const std::string documents = folder / "documents.jsonl", verdict = folder / "verdict";
  const auto [whole, cut] = write_documents(documents);
  EXPECT_GT(whole, 4000u);
  EXPECT_GT(cut, 2000u);
  const std::string command =
      FATHOM_PYTHON " '" FATHOM_TEST_DATA "/../grammar/judge.py' < '" + documents + "' > '" + verdict + "' 2>&1";
  const int status = std::system(command.c_str());
  std::ifstream stream(verdict);
  const std::string said{std::istreambuf_iterator<char>(stream), {}};
  ASSERT_TRUE(WIFEXITED(status)) << said;
  EXPECT_EQ(WEXITSTATUS(status), 0) << said;
}

}  // namespace
}  // namespace fathom
