// Numbers as JSON, where a document's own writer would be too slow.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <span>
#include <string>

namespace a2sf::app {

// "0.5,null,3": JSON has no word for what is not finite.
inline std::string json_numbers(std::span<const float> numbers) {
  std::string text;
  for (const float number : numbers) {
    if (!text.empty()) text += ',';
    if (std::isfinite(number)) {
      fmt::format_to(std::back_inserter(text), "{}", number);
    } else {
      text += "null";
    }
  }
  return text;
}

}  // namespace a2sf::app
