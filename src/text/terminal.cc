#include "text/terminal.h"

#include <fmt/format.h>

#include <cstddef>

namespace a2sf::text {
namespace {

bool is_layout(unsigned char byte) { return byte == '\n' || byte == '\t'; }

// U+0080 to U+009F are the bytes C2 80 to C2 9F.
bool is_c1(std::string_view rest) {
  return rest.size() >= 2 && rest[0] == '\xc2' && static_cast<unsigned char>(rest[1]) >= 0x80 &&
         static_cast<unsigned char>(rest[1]) < 0xa0;
}

}  // namespace

std::string escape_controls(std::string_view text, Layout layout) {
  std::string shown;
  shown.reserve(text.size());
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (is_layout(byte)) {
      shown += layout == Layout::keep ? text[at] : ' ';
    } else if (is_c1(text.substr(at))) {
      shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[++at]));
    } else if (byte < 0x20 || byte == 0x7f) {
      shown += fmt::format("\\x{:02x}", byte);
    } else {
      shown += text[at];
    }
  }
  return shown;
}

}  // namespace a2sf::text
