// Any bytes as a learned model: an error of one line, or predictions that are finite.
#include "policy/learned_model.h"

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto model = a2sf::parse_learned_model({reinterpret_cast<const char*>(data), size});
  if (!model) {
    require(!model.error().message.empty() && model.error().message.find('\n') == std::string::npos);
    return 0;
  }
  for (const a2sf::LearnedLayer& layer : model->layers)
    require(std::isfinite(a2sf::predict(layer, {-14, -14, 0, -14, 12, 1})));
  require(a2sf::parse_learned_model(a2sf::to_json(*model)).has_value());
  return 0;
}
