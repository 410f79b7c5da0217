#include "cache/cold_tier.h"

#include <tuple>

namespace a2sf {

void chill(HeadCache& cold, const HeadCache& from, int slot) {
  if (cold.is_full()) {
    int least = -1;
    const auto value = [&](int s) { return std::tuple(recalls(cold, s), cold.position(s)); };
    for (int s = 0; s < cold.used(); ++s) {
      if (cold.position(s) >= 0 && (least < 0 || value(s) < value(least))) least = s;
    }
    cold.release(least);
  }
  cold.insert_copy(from, slot);
}

}  // namespace a2sf
