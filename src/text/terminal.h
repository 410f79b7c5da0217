// Text that comes from a model or a file, made harmless for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace a2sf::text {

enum class Layout { one_line, keep };

// `text` with every control character (C0, DEL and, in UTF-8, C1) written as "\x1b" would be read, so that it cannot
// move the cursor, change colours or set a title. Layout::keep leaves newlines and tabs as they are; Layout::one_line
// turns both into blanks. All other bytes stay, broken UTF-8 included.
std::string escape_controls(std::string_view text, Layout layout);

}  // namespace a2sf::text
