#include "usage.h"

#include "outcome.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

namespace a2sf::app {
namespace {

using Names = std::vector<std::string>;

// What hands used to other programs type. `unless` is an option that makes the advice wrong where a command has it.
struct Advice {
  std::string_view option, unless, text;
};
constexpr Advice kAdvice[] = {
    {"-hf", "", "models are local files, given with -m FILE (tools/fetch prints the path of a small one)"},
    {"--hf-repo", "", "models are local files, given with -m FILE (tools/fetch prints the path of a small one)"},
    {"-c", "--ctx", "a sequence may be of any length, --budget N bounds its cache"},
    {"--ctx-size", "--ctx", "a sequence may be of any length, --budget N bounds its cache"},
};

// Letters to insert, leave out or replace.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// "; did you mean X?", where X is what was typed with a slip or two, or not to its end.
std::string suggestion(std::string_view typed, const Names& names) {
  const auto slips = [&](const std::string& name) { return name.starts_with(typed) ? 1 : edit_distance(typed, name); };
  const auto nearest =
      std::min_element(names.begin(), names.end(), [&](const auto& a, const auto& b) { return slips(a) < slips(b); });
  if (nearest == names.end() || slips(*nearest) > 2 || slips(*nearest) * 2 >= typed.size()) return "";
  return fmt::format("; did you mean {}?", *nearest);
}

Names command_names(CLI::App& app) {
  Names names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

// Option groups included, which CLI11 holds as commands without a name.
Names long_options(CLI::App& command) {
  Names names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  for (CLI::App* group : command.get_subcommands({})) {
    if (!group->get_name().empty()) continue;
    const Names more = long_options(*group);
    names.insert(names.end(), more.begin(), more.end());
  }
  return names;
}

std::string help_of(const CLI::App& command) {
  return command.get_parent() == nullptr ? "a2sf --help" : fmt::format("a2sf {} --help", command.get_name());
}

[[noreturn]] void unknown_option(CLI::App& command, const std::string& option) {
  for (const Advice& advice : kAdvice) {
    const bool fits = advice.unless.empty() || command.get_option_no_throw(std::string(advice.unless)) == nullptr;
    if (advice.option == option && fits) {
      fail_with(kWrongUsage, fmt::format("unknown option {}: {}", option, advice.text));
    }
  }
  fail_with(kWrongUsage, fmt::format("unknown option {}{} (see {})", option, suggestion(option, long_options(command)),
                                     help_of(command)));
}

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

// "-n128" is -n with its value; what goes on with a letter is meant as one name.
const CLI::Option* find_option(const CLI::App& command, const std::string& name) {
  const bool has_value_attached = name.size() > 2 && name[1] != '-' && !is_letter(name[2]);
  return command.get_option_no_throw(has_value_attached ? name.substr(0, 2) : name);
}

bool looks_like_option(std::string_view argument) {
  return argument.starts_with("--") || (argument.size() > 1 && argument[0] == '-' && is_letter(argument[1]));
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_min() > 0; }

void check_options(CLI::App& command, std::span<const std::string> arguments) {
  for (std::size_t i = 0; i < arguments.size() && arguments[i] != "--"; ++i) {
    if (!looks_like_option(arguments[i])) continue;
    const std::string name = arguments[i].substr(0, arguments[i].find('='));
    const CLI::Option* option = find_option(command, name);
    if (option == nullptr) unknown_option(command, name);
    const bool has_value = arguments[i] != name || command.get_option_no_throw(name) == nullptr;  // --json=3, -n128
    if (has_value && !takes_value(*option)) {
      fail_with(kWrongUsage, fmt::format("{} takes no value (see {})", name, help_of(command)));
    }
    if (!has_value && takes_value(*option)) ++i;
  }
}

}  // namespace

void check_usage(CLI::App& app, std::span<const std::string> arguments) {
  const auto chosen = std::find_if_not(arguments.begin(), arguments.end(), looks_like_option);
  const auto before = static_cast<std::size_t>(chosen - arguments.begin());
  check_options(app, arguments.first(before));
  if (before > 0) return;  // --help or --version
  if (arguments.empty()) {
    fail_with(kWrongUsage,
              fmt::format("a command is needed: {} (see a2sf --help)", fmt::join(command_names(app), ", ")));
  }
  const auto commands = app.get_subcommands([&](const CLI::App* each) { return each->get_name() == *chosen; });
  if (commands.empty()) {
    const Names names = command_names(app);
    const std::string nearest = suggestion(*chosen, names);
    fail_with(kWrongUsage, fmt::format("unknown command '{}'{} there are {} (see a2sf --help)", *chosen,
                                       nearest.empty() ? ":" : nearest, fmt::join(names, ", ")));
  }
  check_options(*commands.front(), arguments.subspan(1));
}

std::string message_of(const CLI::ParseError& error, const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  const CLI::App& command = chosen.empty() ? app : *chosen.front();
  const Names left = command.remaining();
  std::string message = error.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !left.empty()) {
    message = fmt::format("unexpected argument{} {}", left.size() == 1 ? "" : "s", fmt::join(left, " "));
  } else if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    const bool too_many = message.find("At Most") != std::string::npos;
    message = message.substr(0, message.find(": ")) + (too_many ? " is given more than once" : " needs a value");
  }
  return fmt::format("{} (see {})", message, help_of(command));
}

}  // namespace a2sf::app
