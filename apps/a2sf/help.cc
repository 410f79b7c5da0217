#include "help.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

namespace a2sf::app {
namespace {

constexpr std::size_t kCommandColumns = 14, kOptionColumns = 26, kColumns = 100;

// An option group has a --help of its own, which nobody can ask for.
std::vector<const CLI::Option*> own_options(const CLI::App& app) {
  const bool is_group = app.get_name().empty();
  return app.get_options([&](const CLI::Option* option) { return !is_group || option != app.get_help_ptr(); });
}

std::vector<const CLI::App*> children(const CLI::App& app, bool groups) {
  return app.get_subcommands([=](const CLI::App* child) { return child->get_name().empty() == groups; });
}

// Those of option groups, which CLI11 holds as commands without a name, come first.
std::vector<const CLI::Option*> all_options(const CLI::App& app) {
  std::vector<const CLI::Option*> options;
  for (const CLI::App* group : children(app, true)) {
    for (const CLI::Option* option : own_options(*group)) options.push_back(option);
  }
  for (const CLI::Option* option : own_options(app)) options.push_back(option);
  return options;
}

// What stands for the value: "FILE". CLI11 adds the names of checks after a colon and calls numbers by their type.
std::string value_name(const CLI::Option& option) {
  if (option.get_items_expected_max() == 0) return "";
  const std::string type = option.get_type_name();
  const std::string name = type.substr(0, type.find(':'));
  if (name == "INT" || name == "UINT") return "N";
  return name == "FLOAT" ? "X" : name;
}

std::string with_value(const std::string& name, const CLI::Option& option) {
  const std::string value = value_name(option);
  return value.empty() ? name : name + " " + value;
}

// "-m, --model FILE"; long names are aligned whether there is a short one or not. Of several long ones, the first: the
// others are for hands that know them from elsewhere.
std::string names_of(const CLI::Option& option) {
  std::string names;
  for (const std::string& name : option.get_snames()) names += (names.empty() ? "-" : ", -") + name;
  if (names.empty()) names = "    ";
  if (!option.get_lnames().empty()) names += (names.back() == ' ' ? "--" : ", --") + option.get_lnames().front();
  return with_value(names, option);
}

std::string shortest_name(const CLI::Option& option) {
  const auto& names = option.get_snames();
  return with_value(names.empty() ? "--" + option.get_lnames().front() : "-" + names.front(), option);
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    words.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

// A name and what it means, in two columns, broken between words.
std::string entry(const std::string& name, const std::vector<std::string>& words, std::size_t columns) {
  const std::string margin = "\n" + std::string(columns, ' ');
  std::string text = fmt::format("  {:<{}}", name, columns - 2);
  if (text.back() != ' ') text += margin;
  std::size_t column = columns;
  for (const std::string& word : words) {
    const bool first = column == columns;
    if (!first && column + 1 + word.size() > kColumns) {
      text += margin;
      column = columns;
    } else if (!first) {
      text += ' ';
      ++column;
    }
    text += word;
    column += word.size();
  }
  return text + "\n";
}

std::string option_entry(const CLI::Option& option) {
  auto words = words_of(option.get_description());
  const std::string standard = option.get_default_str();
  if (!standard.empty()) words.push_back(fmt::format("(default: {})", standard));
  return entry(names_of(option), words, kOptionColumns);
}

// What has to be given; one of an option group's.
std::string usage(const CLI::App& app) {
  if (app.get_parent() == nullptr) return "Usage: a2sf COMMAND [options]\n";
  std::string line = "Usage: a2sf " + app.get_name();
  for (const CLI::Option* option : own_options(app)) {
    if (option->get_required()) line += " " + shortest_name(*option);
  }
  for (const CLI::App* group : children(app, true)) {
    std::string choice;
    for (const CLI::Option* option : own_options(*group)) {
      choice += (choice.empty() ? "" : " | ") + shortest_name(*option);
    }
    if (group->get_require_option_min() > 0) line += " (" + choice + ")";
  }
  return line + " [options]\n";
}

std::string commands(const CLI::App& app) {
  std::string text;
  for (const CLI::App* command : children(app, false)) {
    text += entry(command->get_name(), words_of(command->get_description()), kCommandColumns);
  }
  return text.empty() ? "" : "\nCommands:\n" + text;
}

std::vector<std::string> headings(const std::vector<const CLI::Option*>& options) {
  std::vector<std::string> headings;
  for (const CLI::Option* option : options) {
    const std::string& heading = option->get_group();
    if (heading != kLastHeading && std::find(headings.begin(), headings.end(), heading) == headings.end()) {
      headings.push_back(heading);
    }
  }
  headings.emplace_back(kLastHeading);
  return headings;
}

std::string options_under(const std::string& heading, const std::vector<const CLI::Option*>& options) {
  std::string text;
  for (const CLI::Option* option : options) {
    if (option->get_group() == heading) text += option_entry(*option);
  }
  return text.empty() ? "" : fmt::format("\n{}:\n{}", heading, text);
}

}  // namespace

std::string HelpFormatter::make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const {
  std::string text = usage(*app) + "\n" + app->get_description() + "\n" + commands(*app);
  const auto options = all_options(*app);
  for (const std::string& heading : headings(options)) text += options_under(heading, options);
  return text + "\n" + app->get_footer() + "\n";
}

Heading::Heading(CLI::App* command, const char* title)
    : command_(command), title_(title), first_(command->get_options().size()) {}

Heading::~Heading() {
  const auto options = command_->get_options();
  for (std::size_t i = first_; i < options.size(); ++i) options[i]->group(title_);
}

}  // namespace a2sf::app
