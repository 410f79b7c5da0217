// Any bytes as a policy spec: an error of one line, or a rule that fits its budget and a text that reads back.
#include <a2sf/policy.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

// The first eight bytes are the length of the sequence and the sliding window.
struct Input {
  std::uint32_t sequence_tokens = 0, window = 0;
  std::string_view text;

  Input(const std::uint8_t* data, std::size_t size) {
    if (size < 8) return;
    std::memcpy(&sequence_tokens, data, 4);
    std::memcpy(&window, data + 4, 4);
    sequence_tokens &= INT32_MAX;
    window &= INT32_MAX;
    text = {reinterpret_cast<const char*>(data) + 8, size - 8};
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input input(data, size);
  if (input.text.find('@') != std::string_view::npos) return 0;  // would read a file, like this
  if (input.text.find("profile=") != std::string_view::npos) return 0;
  const auto spec = a2sf::parse_policy(input.text);
  if (!spec) {
    require(!spec.error().message.empty());
    return 0;
  }
  const std::string text = a2sf::to_string(*spec);
  const auto again = a2sf::parse_policy(text);
  require(again && again->name == spec->name && a2sf::to_string(*again) == text);
  const auto asked = a2sf::resolve(*spec, 0, 0, 0, input.sequence_tokens, 0);
  const auto rule = a2sf::resolve(*spec, 0, 0, 0, input.sequence_tokens, input.window);
  require(!rule || asked);  // a window makes nothing acceptable
  if (!rule || spec->keeps_all()) return 0;
  require(rule->budget >= 1 && (input.window == 0 || rule->budget <= input.window));
  require(rule->alpha >= 0 && rule->alpha <= 1);
  require(rule->sink >= 0 && rule->recent >= 0);
  require(std::max(asked->sink, asked->pin) + asked->recent <= asked->budget);
  require(rule->sink + rule->recent <= rule->budget);
  // Pins may be more than a window holds: they leave with it.
  const bool windowed = input.window > 0 && input.window <= asked->budget;
  require(windowed || std::max(rule->sink, rule->pin) + rule->recent <= rule->budget);
  return 0;
}
