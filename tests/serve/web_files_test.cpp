#include "serve/web_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

namespace fathom {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

TEST(WebFiles, ThePageIsAlwaysThere) {
  const WebFile* page = find_web_file("/");
  ASSERT_NE(page, nullptr);
  EXPECT_THAT(page->bytes, StartsWith("<!doctype html>"));
  EXPECT_THAT(page->bytes, EndsWith("</html>\n"));
  EXPECT_EQ(page->content_type, "text/html; charset=utf-8");
  EXPECT_EQ(page->cache_control, "no-cache");
}

TEST(WebFiles, OnlyWhatWasBuiltIsFound) {
  for (const std::string_view path : {"", "/.", "/..", "/../CMakeLists.txt", "/index", "/assets/", "/assets", "//"})
    EXPECT_EQ(find_web_file(path), nullptr) << path;
}

TEST(WebFiles, EveryFileIsFoundAndComplete) {
  std::set<std::string_view> etags;
  for (const WebFile& file : web_files()) {
    EXPECT_EQ(find_web_file(file.path), &file) << file.path;
    EXPECT_FALSE(file.bytes.empty()) << file.path;
    EXPECT_FALSE(file.content_type.empty()) << file.path;
    EXPECT_EQ(file.etag.size(), 22u) << file.path;
    EXPECT_EQ(file.etag.front(), '"') << file.path;
    EXPECT_EQ(file.etag.back(), '"') << file.path;
    EXPECT_TRUE(etags.insert(file.etag).second) << file.path << ": another file has its etag";
    EXPECT_EQ(file.cache_control.find("immutable") != std::string_view::npos, file.path.starts_with("/assets/"))
        << file.path;
    EXPECT_FALSE(file.path.ends_with(".gz") || file.path.ends_with(".br")) << file.path;
    if (!file.gzip.empty()) {
      EXPECT_THAT(file.gzip, StartsWith("\x1f\x8b")) << file.path;
      EXPECT_LT(file.gzip.size(), file.bytes.size()) << file.path;
      EXPECT_LT(file.brotli.size(), file.bytes.size()) << file.path;
    }
  }
}

TEST(WebFiles, WhatThePageLoadsIsThere) {
  if (!has_web_app()) GTEST_SKIP() << "built without the web app (FATHOM_WEB)";
  const std::string_view page = find_web_file("/")->bytes;
  int loaded = 0;
  for (const std::string_view mark : {"src=\"", "href=\""})
    for (size_t at = page.find(mark); at != std::string_view::npos; at = page.find(mark, at + 1)) {
      const size_t from = at + mark.size();
      const std::string_view path = page.substr(from, page.find('"', from) - from);
      EXPECT_NE(find_web_file(path), nullptr) << path;
      ++loaded;
    }
  EXPECT_GE(loaded, 4) << "script, style, icon and manifest";
  EXPECT_THAT(page, Not(HasSubstr("<style"))) << "the policy takes no inline style";
  EXPECT_NE(find_web_file("/sw.js"), nullptr);
  EXPECT_THAT(find_web_file("/sw.js")->bytes, Not(HasSubstr("__SHELL"))) << "the list of files was not written into it";
}

TEST(WebFiles, WithoutTheAppThePageSaysHowToHaveIt) {
  if (has_web_app()) GTEST_SKIP() << "built with the web app";
  ASSERT_EQ(web_files().size(), 1u);
  EXPECT_THAT(web_files()[0].bytes, HasSubstr("-DFATHOM_WEB=ON"));
}

}  // namespace
}  // namespace fathom
