// Any bytes as a file of token classes: an error of one line, or classes that are written and read as the same.
#include <a2sf/token_classes.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto classes = a2sf::parse_token_classes({reinterpret_cast<const char*>(data), size});
  if (!classes) {
    require(!classes.error().message.empty() && classes.error().message.find('\n') == std::string::npos);
    return 0;
  }
  require(a2sf::validate(*classes).has_value());
  const auto again = a2sf::parse_token_classes(a2sf::to_json(*classes));
  require(again.has_value() && again->class_of == classes->class_of);
  return 0;
}
