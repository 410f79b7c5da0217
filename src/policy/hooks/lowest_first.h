// What hooks of the registry share: slots in the order of their tokens, and the lowest score goes first.
#pragma once

#include <a2sf/hook.h>

#include <algorithm>
#include <vector>

#include "policy/retention.h"

namespace a2sf {

inline void sort_by_position(const HookHead& head, std::vector<int>& slots) {
  std::sort(slots.begin(), slots.end(), [&](int a, int b) { return head.position(a) < head.position(b); });
}

// The slots of the lowest score that may go, of equal scores the older token first: as many as leave `most` in the
// head. `scores`: [slot]; `victims`: the caller's memory, kept from call to call.
template <class Score>
void select_lowest(const HookHead& head, const std::vector<Score>& scores, std::int64_t most,
                   std::vector<int>& victims) {
  victims.clear();
  for (int slot = 0; slot < head.slots(); ++slot) {
    if (head.may_go(slot)) victims.push_back(slot);
  }
  const auto score = [&](int slot) { return scores[static_cast<std::size_t>(slot)]; };
  const auto excess = std::clamp<std::int64_t>(head.held() - most, 0, std::ssize(victims));
  std::partial_sort(victims.begin(), victims.begin() + excess, victims.end(),
                    [&](int a, int b) { return goes_before(score(a), head.position(a), score(b), head.position(b)); });
  victims.resize(static_cast<std::size_t>(excess));
}

// Evicts the slots that select_lowest() selects.
template <class Score>
void evict_lowest(HookHead& head, const std::vector<Score>& scores, std::int64_t most, std::vector<int>& victims) {
  select_lowest(head, scores, most, victims);
  for (const int slot : victims) head.evict(slot);
}

}  // namespace a2sf
