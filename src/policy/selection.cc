#include <algorithm>
#include <vector>

#include "policy/retention.h"

namespace a2sf {

void select_victims(const HeadCache& head, const Evictable& evictable, std::int64_t count, std::vector<int>& victims) {
  victims.clear();
  for (int slot = 0; slot < head.used(); ++slot) {
    if (evictable(head.position(slot))) victims.push_back(slot);
  }
  const auto wanted = static_cast<std::size_t>(std::clamp<std::int64_t>(count, 0, std::ssize(victims)));
  const auto end = victims.begin() + static_cast<std::ptrdiff_t>(wanted);
  std::partial_sort(victims.begin(), end, victims.end(), [&](int a, int b) {
    return goes_before(head.score(a), head.position(a), head.score(b), head.position(b));
  });
  victims.resize(wanted);
}

}  // namespace a2sf
