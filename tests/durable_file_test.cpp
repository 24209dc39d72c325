// DurableFile: whatever happens, the old file or the new one is there, whole, and nothing else.
#include "io/durable_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>
#include <string>
#include <vector>

#include "temporary_directory.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

namespace fs = std::filesystem;

class DurableFileTest : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_ / name; }

  // The names in the folder; a temporary file that was left would be among them.
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_))
      found.push_back(entry.path().filename());
    std::sort(found.begin(), found.end());
    return found;
  }

  const TemporaryDirectory directory_;
  const fs::path folder_ = directory_.path();
};

using Names = std::vector<std::string>;

void put(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string contents(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

mode_t mode_of(const std::string& path) {
  struct stat status = {};
  EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 07777;
}

void replace(const std::string& path, const std::string& text) {
  DurableFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

std::string error_of(const std::string& path, const std::string& text = "new") {
  try {
    replace(path, text);
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

// Restores the umask when it goes.
struct Umask {
  explicit Umask(mode_t mask) : before(umask(mask)) {}
  ~Umask() { umask(before); }
  const mode_t before;
};

TEST_F(DurableFileTest, WritesInPartsAndLeavesNothingElse) {
  DurableFile file(path("a"));
  file.write("one ", 4);
  file.write("", 0);
  file.write("two", 3);
  EXPECT_FALSE(fs::exists(path("a"))) << "before commit there is no file";
  file.commit();
  EXPECT_EQ(contents(path("a")), "one two");
  EXPECT_EQ(names(), Names{"a"});
}

TEST_F(DurableFileTest, WithoutCommitTheOldFileStays) {
  put(path("a"), "old");
  {
    DurableFile file(path("a"));
    file.write("new", 3);
    EXPECT_EQ(contents(path("a")), "old");
  }
  EXPECT_EQ(contents(path("a")), "old");
  EXPECT_EQ(names(), Names{"a"});
}

TEST_F(DurableFileTest, NewFilesHave0644LessTheUmask) {
  for (const mode_t mask : {0, 022, 027, 077}) {
    const Umask umask_of_the_process(mask);
    const std::string file = path("mask-" + std::to_string(mask));
    replace(file, "new");
    EXPECT_EQ(mode_of(file), 0644 & ~mask) << std::oct << mask;
  }
}

TEST_F(DurableFileTest, ExistingFilesKeepTheirMode) {
  const Umask umask_of_the_process(077);
  for (const mode_t mode : {0600, 0644, 0664, 0755}) {
    put(path("a"), "old");
    ASSERT_EQ(chmod(path("a").c_str(), mode), 0);
    replace(path("a"), "new");
    EXPECT_EQ(mode_of(path("a")), mode) << std::oct << mode;
    EXPECT_EQ(contents(path("a")), "new");
  }
}

TEST_F(DurableFileTest, ReplacesWhatASymbolicLinkPointsTo) {
  fs::create_directory(path("elsewhere"));
  put(path("elsewhere/target"), "old");
  fs::create_symlink("elsewhere/target", path("second"));  // relative to the link's own folder
  fs::create_symlink("second", path("first"));
  replace(path("first"), "new");
  EXPECT_EQ(fs::read_symlink(path("first")), "second");
  EXPECT_EQ(fs::read_symlink(path("second")), "elsewhere/target");
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(path("elsewhere/target"))));
  EXPECT_EQ(contents(path("elsewhere/target")), "new");
  EXPECT_EQ(names(), (Names{"elsewhere", "first", "second"}));
}

TEST_F(DurableFileTest, MakesWhatADanglingLinkPointsTo) {
  fs::create_directory(path("elsewhere"));
  fs::create_symlink("elsewhere/target", path("link"));
  replace(path("link"), "new");
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(contents(path("elsewhere/target")), "new");
}

TEST_F(DurableFileTest, RefusesACircleOfLinks) {
  fs::create_symlink("b", path("a"));
  fs::create_symlink("a", path("b"));
  const std::string error = error_of(path("a"));
  EXPECT_NE(error.find(path("a")), std::string::npos) << error;
  EXPECT_TRUE(fs::is_symlink(path("a")));
  EXPECT_EQ(names(), (Names{"a", "b"}));
}

TEST_F(DurableFileTest, RefusalsNameTheFileAndTheReason) {
  put(path("file"), "old");
  const struct {
    std::string path, reason;
  } cases[] = {
      {path("missing/a"), "No such file or directory"},
      {path("file/a"), "Not a directory"},
      {folder_, "Is a directory"},
      {"", "No such file or directory"},
      {path(std::string(300, 'x')), "File name too long"},
  };
  for (const auto& wrong : cases) {
    const std::string error = error_of(wrong.path);
    EXPECT_EQ(error.rfind(wrong.path + ": ", 0), 0u) << error;
    EXPECT_NE(error.find(wrong.reason), std::string::npos) << error;
  }
  EXPECT_EQ(names(), Names{"file"});
}

// In a child, because a process that lowered its limit could not be trusted with other tests.
// RLIMIT_FSIZE lets the first bytes through and fails the rest, as a disk does that fills up.
TEST_F(DurableFileTest, AWriteThatFailsHalfWayLeavesTheOldFile) {
  put(path("a"), "old");
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const std::string error = error_of(path("a"), std::string(5000, 'n'));
    const bool clear = error == path("a") + ": cannot be written: File too large";
    _exit(clear ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "no such error: " << status;
  EXPECT_EQ(contents(path("a")), "old");
  EXPECT_EQ(names(), Names{"a"});
}

TEST(DurableFileInPlace, AFullDeviceIsAnError) {
  const std::string error = error_of("/dev/full");
  EXPECT_EQ(error, "/dev/full: cannot be written: No space left on device");
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

TEST(DurableFileInPlace, DevNullStaysADevice) {
  EXPECT_EQ(error_of("/dev/null"), "(no error)");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(DurableFileTest, APipeIsWrittenInPlace) {
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  std::future<std::string> reader =
      std::async(std::launch::async, [&] { return contents(path("pipe")); });
  replace(path("pipe"), "through the pipe");
  EXPECT_EQ(reader.get(), "through the pipe");
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
  EXPECT_EQ(names(), Names{"pipe"});
}

// As /dev/stdout is one: the link reads "pipe:[7]", which is no file's name.
TEST_F(DurableFileTest, APipeThatOnlyALinkNamesIsWrittenInPlace) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  fs::create_symlink("/proc/self/fd/" + std::to_string(ends[1]), path("link"));
  EXPECT_EQ(error_of(path("link")), "(no error)");
  char text[4] = "";
  EXPECT_EQ(read(ends[0], text, 3), 3);
  EXPECT_STREQ(text, "new");
  close(ends[0]);
  close(ends[1]);
  EXPECT_TRUE(fs::is_symlink(path("link")));
}

}  // namespace
}  // namespace mocograd
