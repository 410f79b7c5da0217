#include <a2sf/hook.h>

#include <algorithm>

#include "policy/retention.h"

namespace a2sf {
namespace {

std::int64_t held(const HookHead& head) {
  return std::count_if(head.positions.begin(), head.positions.end(),
                       [](std::int32_t position) { return position >= 0; });
}

struct Candidate {
  Victim victim{-1, -1};
  float score = 0;
};

// The lowest score among tokens older than the newest half of the head's share; the older token first.
Candidate weakest(const HookHead& head, int kv_head, std::int64_t now) {
  Candidate best;
  std::int32_t best_position = 0;
  for (std::size_t slot = 0; slot < head.positions.size(); ++slot) {
    const std::int32_t position = head.positions[slot];
    if (position < 0 || position > now - head.budget / 2) continue;
    const float score = head.scores[slot];
    if (best.victim.slot < 0 || goes_before(score, position, best.score, best_position)) {
      best = {{kv_head, static_cast<std::int32_t>(slot)}, score};
      best_position = position;
    }
  }
  return best;
}

}  // namespace

void SharedBudget::evict(const HookLayer& layer, std::vector<Victim>& victims) {
  std::int64_t held_by_layer = 0, budget_of_layer = 0;
  bool one_is_full = false;
  for (const HookHead& head : layer.heads) {
    held_by_layer += held(head);
    budget_of_layer += head.budget;
    one_is_full = one_is_full || held(head) > capacity(head.budget);
  }
  // Every head gained one token in this step, so each pass over the layer takes as many as came.
  std::vector<std::int64_t> count;
  for (const HookHead& head : layer.heads) count.push_back(held(head));
  std::vector<std::vector<std::int32_t>> positions;
  for (const HookHead& head : layer.heads) positions.emplace_back(head.positions.begin(), head.positions.end());
  while (held_by_layer > budget_of_layer || one_is_full) {
    Candidate lowest;
    one_is_full = false;
    for (std::size_t h = 0; h < layer.heads.size(); ++h) {
      HookHead head = layer.heads[h];
      head.positions = positions[h];
      const Candidate candidate = weakest(head, static_cast<int>(h), layer.position);
      if (candidate.victim.slot < 0) continue;
      const bool must = count[h] > capacity(head.budget);
      if (must || (count[h] > 1 && (lowest.victim.slot < 0 || candidate.score < lowest.score))) lowest = candidate;
      if (must) break;
    }
    if (lowest.victim.slot < 0) return;
    const auto h = static_cast<std::size_t>(lowest.victim.kv_head);
    positions[h][static_cast<std::size_t>(lowest.victim.slot)] = -1;
    victims.push_back(lowest.victim);
    --count[h];
    --held_by_layer;
    for (std::size_t i = 0; i < count.size(); ++i)
      one_is_full = one_is_full || count[i] > capacity(layer.heads[i].budget);
  }
}

}  // namespace a2sf
