#include "text/utf8.h"

#include <a2sf/text.h>

#include <algorithm>

namespace a2sf::text {
namespace {

struct Prefix {
  std::size_t expected;  // length that the first byte announces; 0 if no character begins with it
  std::size_t matching;  // how many leading bytes fit that character
  bool whole() const { return expected > 0 && matching == expected; }
};

// The second byte alone has narrower bounds: they rule out overlong forms, surrogates and what is above U+10FFFF.
bool second_byte_fits(unsigned char first, unsigned char second) {
  const unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  return second >= low && second <= high;
}

std::size_t announced_length(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return 2;
  if (first >= 0xE0 && first <= 0xEF) return 3;
  if (first >= 0xF0 && first <= 0xF4) return 4;
  return 0;
}

Prefix match(std::string_view text) {
  if (text.empty()) return {0, 0};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t expected = announced_length(byte(0));
  if (expected == 0) return {0, 0};
  std::size_t matching = 1;
  while (matching < std::min(expected, text.size())) {
    const bool fits = matching == 1 ? second_byte_fits(byte(0), byte(1)) : (byte(matching) & 0xC0) == 0x80;
    if (!fits) break;
    ++matching;
  }
  return {expected, matching};
}

}  // namespace

std::size_t character_length(std::string_view text) {
  const Prefix prefix = match(text);
  return prefix.whole() ? prefix.expected : 0;
}

std::size_t incomplete_tail_length(std::string_view text) {
  // A first byte is never part of another character, so the earliest one that is cut off by the end is the right one.
  for (std::size_t length = std::min<std::size_t>(3, text.size()); length > 0; --length) {
    const Prefix prefix = match(text.substr(text.size() - length));
    if (prefix.matching == length && prefix.expected > length) return length;
  }
  return 0;
}

std::string replace_invalid(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const Prefix prefix = match(text);
    const std::size_t length = std::max<std::size_t>(prefix.matching, 1);
    if (prefix.whole()) {
      result.append(text.substr(0, length));
    } else {
      result.append("\xEF\xBF\xBD");
    }
    text.remove_prefix(length);
  }
  return result;
}

}  // namespace a2sf::text

namespace a2sf {

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  std::size_t offset = 0;
  while (offset < text.size()) {
    const std::size_t length = text::character_length(text.substr(offset));
    if (length == 0) return offset;
    offset += length;
  }
  return std::nullopt;
}

}  // namespace a2sf
