// Well-formed UTF-8 as the Unicode standard defines it (table 3-7): no surrogates, no overlong forms, nothing above
// U+10FFFF.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace a2sf::text {

// Length of the character that `text` begins with, or 0 if it begins with none.
std::size_t character_length(std::string_view text);

// How many bytes at the end are the beginning of a character that may still become whole: 0 to 3.
std::size_t incomplete_tail_length(std::string_view text);

// `text` with U+FFFD in place of each maximal ill-formed part, as browsers and Python do it.
std::string replace_invalid(std::string_view text);

}  // namespace a2sf::text
