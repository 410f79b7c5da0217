// What --help prints.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <string>

namespace a2sf::app {

// Usage, commands, options under their headings with what they are when not given, and an example.
class HelpFormatter final : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
};

// The heading of what every command has: it comes last.
inline constexpr const char* kLastHeading = "Output and help";

// Options that are added while it lives stand under this heading.
class Heading {
 public:
  Heading(CLI::App* command, const char* title);
  ~Heading();
  Heading(const Heading&) = delete;
  Heading& operator=(const Heading&) = delete;

 private:
  CLI::App* command_;
  const char* title_;
  std::size_t first_;
};

}  // namespace a2sf::app
