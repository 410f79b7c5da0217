// What is said on standard error, and the words of strangers (names in files, values of options) on a terminal.
#pragma once

#include <string>
#include <string_view>

namespace a2sf::app {

// Writes to standard error and flushes. Never fails or throws: where standard error takes nothing, nobody listens.
void say(std::string_view text) noexcept;

// "a2sf: warning: LINE", in one line.
void warn(std::string_view line);

// The text in one line, its control characters written out: for names and paths among other text.
std::string harmless(std::string_view text);

}  // namespace a2sf::app
