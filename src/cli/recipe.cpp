#include "cli/recipe.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <sstream>

#include "io/input_file.h"
#include "io/json.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

constexpr char kBlank[] = " \t\r";

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

class RecipeReader {
 public:
  RecipeReader(const CLI::App& app, std::istream& stream) : app_(app), stream_(stream) {}

  // Of the command that was called.
  std::vector<CLI::ConfigItem> read() {
    read_lines();
    std::vector<CLI::ConfigItem> items;
    const std::vector<CLI::App*> called = app_.get_subcommands();
    if (called.empty()) return items;
    // CLI11 takes the first of several values of a flag.
    std::vector<std::string> sections = {called.front()->get_name()};
    if (sections[0] == "step") sections.push_back("pretrain");
    bool found = false;
    for (const std::string& section : sections) {
      const auto entry = sections_.find(section);
      if (entry == sections_.end()) continue;
      found = true;
      for (const Line& line : entry->second) {
        const CLI::Option* option = called.front()->get_option_no_throw("--" + line.key.name);
        if (!option || !option->get_configurable()) continue;
        if (line.is_list)
          fail("'" + line.key.name + "' has a list of values, which moco ablate takes alone",
               line.number);
        CLI::ConfigItem item;
        item.parents = {called.front()->get_name()};
        item.name = line.key.name;
        item.inputs = line.key.values;
        items.push_back(item);
      }
    }
    if (!found)
      throw CLI::ConfigError("has no [" + sections[0] + "], and so nothing for moco " +
                             sections[0]);
    return items;
  }

  // Of moco pretrain.
  std::vector<RecipeKey> read_grid() {
    read_lines();
    const auto entry = sections_.find("pretrain");
    if (entry == sections_.end()) throw CLI::ConfigError("has no [pretrain]");
    std::vector<RecipeKey> keys;
    for (const Line& line : entry->second) keys.push_back(line.key);
    return keys;
  }

 private:
  struct Line {
    int number;
    RecipeKey key;
    bool is_list;
  };

  [[noreturn]] static void fail(const std::string& what, int line) {
    throw CLI::ConfigError("line " + std::to_string(line) + ": " + what);
  }
  [[noreturn]] void fail(const std::string& what) const { fail(what, line_); }

  void read_lines() {
    for (std::string text; std::getline(stream_, text);) {
      ++line_;
      read_line(text);
    }
  }

  void read_line(const std::string& text) {
    const std::string statement = trimmed(without_comment(text));
    if (statement.empty()) return;
    if (statement.front() == '[') return begin_section(statement);
    const size_t equals = statement.find('=');
    if (equals == std::string::npos)
      fail("'" + statement + "' is neither [COMMAND] nor key = value");
    const std::string key = trimmed(statement.substr(0, equals));
    if (!command_) fail("'" + key + "' stands before any [COMMAND]");
    const CLI::Option* option = command_->get_option_no_throw("--" + key);
    if (!option || !option->get_configurable())
      fail("unknown key '" + key + "' in [" + command_->get_name() + "]");
    if (!seen_.insert(key).second) fail("'" + key + "' is there twice");
    const std::string right = trimmed(statement.substr(equals + 1));
    const bool is_list = right.starts_with('[');
    sections_[command_->get_name()].push_back(
        {line_, {key, is_list ? list(key, right) : std::vector{value(key, right)}}, is_list});
  }

  // Where one of the characters first stands that is in no string; the text's end if none does.
  static size_t find_unquoted(const std::string& text, const char* characters, size_t from = 0) {
    char quote = 0;
    for (size_t i = from; i < text.size(); ++i) {
      const char c = text[i];
      if (quote == '"' && c == '\\') {
        ++i;
      } else if (quote) {
        if (c == quote) quote = 0;
      } else if (c == '"' || c == '\'') {
        quote = c;
      } else if (std::strchr(characters, c)) {
        return i;
      }
    }
    return text.size();
  }

  static std::string without_comment(const std::string& text) {
    return text.substr(0, find_unquoted(text, "#"));
  }

  // [a, b, …], as TOML has it with a comma behind the last or without.
  std::vector<std::string> list(const std::string& key, const std::string& text) const {
    std::vector<std::string> values;
    for (size_t begin = 1;;) {
      const size_t end = find_unquoted(text, ",]", begin);
      if (end == text.size()) fail("'" + key + "': a list that does not end in its line");
      const std::string one = trimmed(text.substr(begin, end - begin));
      const bool last = text[end] == ']';
      if (!one.empty() || !last) {
        values.push_back(value(key, one));
        if (std::ranges::count(values, values.back()) > 1)
          fail("'" + key + "' has " + values.back() + " twice");
      }
      begin = end + 1;
      if (!last) continue;
      if (begin != text.size()) fail("'" + key + "': something stands behind its list");
      if (values.empty()) fail("'" + key + "': a list of nothing");
      return values;
    }
  }

  void begin_section(const std::string& statement) {
    const std::string name = trimmed(statement.substr(1, statement.size() - 2));
    const std::vector<const CLI::App*> found =
        app_.get_subcommands([&](const CLI::App* command) { return command->get_name() == name; });
    if (statement.back() != ']' || found.size() != 1) fail(statement + " is no command");
    command_ = found.front();
    if (!sections_.try_emplace(name).second) fail("[" + name + "] is there twice");
    seen_.clear();
  }

  std::string value(const std::string& key, const std::string& text) const {
    if (text.empty()) fail("'" + key + "' has no value");
    if (text.front() == '\'') {
      if (text.size() < 2 || text.find('\'', 1) != text.size() - 1)
        fail("'" + key + "': a string that does not end");
      return text.substr(1, text.size() - 2);
    }
    if (text.front() == '"') {  // TOML's basic strings, but for \U…, are JSON's
      try {
        return *parse_json(text).get<std::string>();
      } catch (const Error& error) {
        fail("'" + key + "': " + error.what());
      }
    }
    const bool word =
        text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.+-E_") == std::string::npos;
    if (!word)
      fail("'" + key + "' has the value " + text + ", which is no string, number or boolean");
    return text;
  }

  const CLI::App& app_;
  std::istream& stream_;
  int line_ = 0;
  const CLI::App* command_ = nullptr;
  std::set<std::string> seen_;                         // keys of this section
  std::map<std::string, std::vector<Line>> sections_;  // by command
};

class RecipeFormat : public CLI::Config {
 public:
  explicit RecipeFormat(const CLI::App& app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& stream) const override {
    return RecipeReader(app_, stream).read();
  }
  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return ""; }

 private:
  const CLI::App& app_;
};

}  // namespace

void add_recipe_flag(CLI::App& app) {
  app.set_config("--recipe", "", "defaults from a TOML file; flags win over it")
      ->type_name("TEXT")
      ->check(CLI::ExistingFile);
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.config_formatter(std::make_shared<RecipeFormat>(app));
}

std::vector<RecipeKey> read_grid(const std::string& path, const CLI::App& app) {
  std::istringstream stream(InputFile(path).read_text());
  try {
    return RecipeReader(app, stream).read_grid();
  } catch (const CLI::ConfigError& error) {
    throw UsageError(path + ": " + error.what());
  }
}

}  // namespace mocograd
