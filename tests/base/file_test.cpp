// Files: whole reads with a limit, atomic writes, Result.
#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "base/cpu_features.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using testing::HasSubstr;

std::string text_of(const std::filesystem::path& path) { return read_file(path).value_or("cannot be read"); }

size_t files_in(const TempDir& folder) {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator(folder.path()), std::filesystem::directory_iterator()));
}

TEST(ReadFile, WholeOrAnError) {
  const TempDir folder;
  const std::string text(200000, 'x');
  std::ofstream(folder / "a") << text;
  EXPECT_EQ(text_of(folder / "a"), text);
  EXPECT_TRUE(read_file(folder / "a", 200000));
  const auto large = read_file(folder / "a", 199999);
  ASSERT_FALSE(large);
  EXPECT_THAT(large.error().message, HasSubstr("199999"));
  EXPECT_THAT(large.error().message, HasSubstr((folder / "a").string()));
  EXPECT_FALSE(read_file(folder / "none"));
  EXPECT_FALSE(read_file(folder.path()));
}

TEST(AtomicFile, AppearsOnCommitOnly) {
  const TempDir folder;
  const auto path = folder / "config.json";
  {
    auto file = AtomicFile::create(path);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write("new"));
    EXPECT_FALSE(std::filesystem::exists(path));
    ASSERT_TRUE(file->commit());
    EXPECT_EQ(text_of(path), "new");
  }
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(AtomicFile, WithoutCommitTheOldFileStaysAndNothingIsLeft) {
  const TempDir folder;
  const auto path = folder / "a";
  ASSERT_TRUE(write_file_atomically(path, "old"));
  {
    auto file = AtomicFile::create(path);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write("half of the new"));
    AtomicFile moved = *std::move(file);
    ASSERT_TRUE(moved.write("more"));
  }
  EXPECT_EQ(text_of(path), "old");
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(AtomicFile, WriteAt) {
  const TempDir folder;
  auto file = AtomicFile::create(folder / "a");
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->write("0123456789"));
  ASSERT_TRUE(file->write_at(3, std::as_bytes(std::span("abc", 3))));
  ASSERT_TRUE(file->commit());
  EXPECT_EQ(text_of(folder / "a"), "012abc6789");
}

TEST(AtomicFile, FilesAreAsReadableAsAnyOther) {
  const TempDir folder;
  ASSERT_TRUE(write_file_atomically(folder / "a", "x"));
  std::ofstream(folder / "b") << "x";
  struct stat a {
  }, b{};
  ASSERT_EQ(stat((folder / "a").c_str(), &a), 0);
  ASSERT_EQ(stat((folder / "b").c_str(), &b), 0);
  EXPECT_EQ(a.st_mode, b.st_mode);
}

TEST(AtomicFile, ErrorsNameTheFile) {
  const auto file = AtomicFile::create("/nonexistent-folder/config.json");
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, HasSubstr("/nonexistent-folder/config.json"));
}

Result<int> half(int x) {
  if (x % 2) return fail("{} is odd", x);
  return x / 2;
}
Result<int> quarter(int x) {
  FATHOM_TRY(const int once, half(x));
  FATHOM_TRY(const int twice, half(once));
  return twice;
}
Status only_even(int x) {
  FATHOM_RETURN_IF_ERROR(half(x).map([](int) {}));
  return {};
}

TEST(Result, TryPassesErrorsOn) {
  EXPECT_EQ(quarter(12).value_or(-1), 3);
  EXPECT_EQ(quarter(7).error().message, "7 is odd");
  EXPECT_EQ(quarter(6).error().message, "3 is odd");
  EXPECT_TRUE(only_even(2));
  EXPECT_EQ(only_even(3).error().message, "3 is odd");
}

// Sets FATHOM_ISA for a scope.
class IsaVariable {
 public:
  explicit IsaVariable(const char* value) : old_(current()) { setenv("FATHOM_ISA", value, 1); }
  ~IsaVariable() {
    if (old_)
      setenv("FATHOM_ISA", old_->c_str(), 1);
    else
      unsetenv("FATHOM_ISA");
  }

 private:
  static std::optional<std::string> current() {
    const char* value = getenv("FATHOM_ISA");
    return value ? std::optional<std::string>(value) : std::nullopt;
  }
  std::optional<std::string> old_;
};

TEST(ChooseIsa, TheVariableDecidesAndMistakesAreNamed) {
  for (Isa isa : {Isa::kReference, Isa::kPortable}) {
    const IsaVariable variable(std::string(isa_name(isa)).c_str());
    EXPECT_EQ(choose_isa().value_or(Isa::kAmx), isa);
  }
  {
    const IsaVariable variable("sse9");
    const auto isa = choose_isa();
    ASSERT_FALSE(isa);
    EXPECT_THAT(isa.error().message, HasSubstr("sse9"));
  }
  const IsaVariable none("");
  ASSERT_TRUE(choose_isa());
  EXPECT_TRUE(isa_supported(*choose_isa()));
}

}  // namespace
}  // namespace fathom
