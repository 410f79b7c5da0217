#include <algorithm>
#include <vector>

#include "policy/retention.h"

namespace a2sf {

void select_victims(const HeadCache& head, const HeadRule& rule, std::int64_t now, std::int64_t count,
                    std::vector<int>& victims) {
  const Evictable evictable(rule, now);
  const auto score_of = [&](int slot) { return decisive_score(head, rule, slot); };
  victims.clear();
  for (int slot = 0; slot < head.used(); ++slot) {
    if (evictable(head.position(slot))) victims.push_back(slot);
  }
  const auto wanted = static_cast<std::size_t>(std::clamp<std::int64_t>(count, 0, std::ssize(victims)));
  const auto end = victims.begin() + static_cast<std::ptrdiff_t>(wanted);
  std::partial_sort(victims.begin(), end, victims.end(), [&](int a, int b) {
    return goes_before(score_of(a), head.position(a), score_of(b), head.position(b));
  });
  victims.resize(wanted);
}

}  // namespace a2sf
