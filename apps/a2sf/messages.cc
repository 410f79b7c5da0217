#include "messages.h"

#include "text/terminal.h"

#include <fmt/format.h>

#include <cstdio>

namespace a2sf::app {

void say(std::string_view text) noexcept {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void warn(std::string_view line) { say(fmt::format("a2sf: warning: {}\n", harmless(line))); }

std::string harmless(std::string_view text) { return text::escape_controls(text, text::Layout::one_line); }

}  // namespace a2sf::app
