// moco debug console as a program: scripts and exit codes, and a person at a terminal.
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace mocograd {
namespace {

namespace fs = std::filesystem;

const std::string kSmall = " debug console --width 2 --batch 8 --threads 1 ";

std::string program() {
  const char* build = std::getenv("BUILD");
  return (fs::path(build ? build : "build") / "moco").string();
}

struct Result {
  int code = -1;
  std::string output;
};

Result shell(const std::string& command) {
  const fs::path file = fs::temp_directory_path() / ("console-" + std::to_string(getpid()));
  const int status = std::system((command + " >" + file.string() + " 2>&1").c_str());
  std::ifstream stream(file);
  std::stringstream text;
  text << stream.rdbuf();
  fs::remove(file);
  return {WEXITSTATUS(status), text.str()};
}

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "no '" << part << "' in\n" << text;
}

TEST(ConsoleProgram, AScriptIsEchoedAndItsEndQuits) {
  const Result result = shell("printf 'backward\\nwhere\\n' | " + program() + kSmall);
  EXPECT_EQ(result.code, 0);
  expect_part(result.output, "(moco) backward\n%");
  expect_part(result.output, "name    cross_entropy");
}

TEST(ConsoleProgram, AnErrorInAScriptIsExitCode1) {
  const fs::path script =
      fs::temp_directory_path() / ("console-script-" + std::to_string(getpid()));
  std::ofstream(script) << "# to the end\nnonsense\nfinish\n";
  const Result result = shell(program() + kSmall + "--script " + script.string());
  fs::remove(script);
  EXPECT_EQ(result.code, 1);
  expect_part(result.output, "error: 'nonsense' is no command");
  expect_part(result.output, "step 0 of 1 is done: loss ");  // it went on
}

TEST(ConsoleProgram, AScriptThatCannotBeReadIsNamed) {
  for (const std::string script : {"no/such/file", "tests"}) {
    const Result result = shell(program() + kSmall + "--script " + script);
    EXPECT_EQ(result.code, 1);
    EXPECT_EQ(result.output, "error: " + script + ": cannot be read\n");
  }
  EXPECT_EQ(shell(program() + kSmall + "--script /dev/null").code, 0);
}

// The program on a pseudo-terminal.
class Terminal {
 public:
  Terminal() {
    child_ = forkpty(&terminal_, nullptr, nullptr, nullptr);
    if (child_ != 0) return;
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    execl("/bin/sh", "sh", "-c", ("exec " + program() + kSmall).c_str(), nullptr);
    _exit(127);
  }
  ~Terminal() {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
    close(terminal_);
  }

  bool opened() const { return child_ > 0; }

  void type(const std::string& keys) {
    ASSERT_EQ(write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }

  // Reads on until `text` has come after what was waited for before.
  bool wait_for(const std::string& text) {
    for (;;) {
      const size_t found = output_.find(text, seen_);
      if (found != std::string::npos) {
        seen_ = found + text.size();
        return true;
      }
      pollfd ready = {terminal_, POLLIN, 0};
      char buffer[4096];
      if (poll(&ready, 1, 30'000) != 1) return false;
      const ssize_t count = read(terminal_, buffer, sizeof buffer);
      if (count <= 0) return false;
      output_.append(buffer, static_cast<size_t>(count));
    }
  }

  int exit_code() {
    int status = 0;
    waitpid(child_, &status, 0);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  const std::string& output() const { return output_; }

 private:
  pid_t child_ = -1;
  int terminal_ = -1;
  std::string output_;
  size_t seen_ = 0;
};

constexpr const char* kPrompt = "(moco) ";
constexpr const char* kLeft = "\033[D";
constexpr const char* kUp = "\033[A";
constexpr const char* kBackspace = "\177";
constexpr const char* kInterrupt = "\003";
constexpr const char* kEndOfFile = "\004";

TEST(ConsoleProgram, KeysEditALineAtATerminal) {
  Terminal terminal;
  if (!terminal.opened()) GTEST_SKIP() << "no pseudo-terminals here";
  ASSERT_TRUE(terminal.wait_for(kPrompt)) << terminal.output();
  terminal.type(std::string("nxtq") + kBackspace + kLeft + kLeft + "e\r");  // next
  ASSERT_TRUE(terminal.wait_for("%0 ema")) << terminal.output();
  ASSERT_TRUE(terminal.wait_for(kPrompt)) << terminal.output();
  terminal.type(std::string(kUp) + " 2\r");  // next 2
  ASSERT_TRUE(terminal.wait_for("%2 ema")) << terminal.output();
  ASSERT_TRUE(terminal.wait_for(kPrompt)) << terminal.output();
  terminal.type("backw\t\r");
  ASSERT_TRUE(terminal.wait_for("backward cross_entropy")) << terminal.output();
  ASSERT_TRUE(terminal.wait_for(kPrompt)) << terminal.output();
  terminal.type(std::string("quit") + kInterrupt);  // dropped
  ASSERT_TRUE(terminal.wait_for("^C")) << terminal.output();
  ASSERT_TRUE(terminal.wait_for(kPrompt)) << terminal.output();
  terminal.type("where\r");
  ASSERT_TRUE(terminal.wait_for("phase backward")) << terminal.output();
  terminal.type("bre\t\tz\r");  // break and breakpoints begin so
  ASSERT_TRUE(terminal.wait_for("'breakz' is no command")) << terminal.output();
  ASSERT_TRUE(terminal.wait_for(kPrompt)) << terminal.output();
  terminal.type("wö\r");
  ASSERT_TRUE(terminal.wait_for("'wö' is no command")) << terminal.output();
  ASSERT_TRUE(terminal.wait_for(kPrompt)) << terminal.output();
  terminal.type("nonsense\r");
  ASSERT_TRUE(terminal.wait_for("is no command")) << terminal.output();
  ASSERT_TRUE(terminal.wait_for(kPrompt)) << terminal.output();
  terminal.type(kEndOfFile);
  EXPECT_EQ(terminal.exit_code(), 0) << terminal.output();
}

}  // namespace
}  // namespace mocograd
