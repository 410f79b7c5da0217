#include "kernels/cpu/rotations.h"

#include <cmath>

namespace a2sf::cpu {

void Rotations::prepare(const Step& step, const RopeTable& rope) {
  pairs_ = static_cast<int>(rope.angles.size());
  interleaved_ = rope.interleaved;
  cosine_.resize(step.tokens.size() * rope.angles.size());
  sine_.resize(cosine_.size());
  for (const Span& span : step.spans) {
    for (int row = 0; row < span.rows; ++row) {
      const auto base = static_cast<std::size_t>(span.first_row + row) * rope.angles.size();
      for (std::size_t i = 0; i < rope.angles.size(); ++i) {
        const double angle = rope.angles[i] * static_cast<double>(span.first_position + row);
        cosine_[base + i] = static_cast<float>(std::cos(angle) * rope.magnitude);
        sine_[base + i] = static_cast<float>(std::sin(angle) * rope.magnitude);
      }
    }
  }
}

}  // namespace a2sf::cpu
