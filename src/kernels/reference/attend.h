// The definition of attend: one row of one KV head, in plain C++ and double precision.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace a2sf::reference {

// One row of one KV head's group. q, out: [group][head_dim], rotated already.
struct Row {
  HeadCache* head;
  const Retention* retention;
  const HeadRule* rule;
  std::int64_t position;
  int group, head_dim, window;
  float scale;
  bool may_evict;  // false inside a prompt under block = prompt
  bool evict_all;  // the last row of such a prompt: down to the budget at once
  std::span<const float> q, k, v;
  std::span<float> out;
  // Asked which of two slots to evict where their scores are a near tie; nullptr: the exact rule.
  const std::vector<std::int32_t>* follow = nullptr;  // positions another implementation evicted in this row
};

// Steps 0 to 4 of the semantics. Returns the positions evicted, in order; nothing, and no score has changed, if the
// key, the value or a logit is not finite. `probabilities`, if given, receives [group][slots used] of this row, 0 in
// free slots.
std::optional<std::vector<std::int32_t>> attend(const Row& row, std::vector<double>* probabilities = nullptr);

// Rotates the leading 2 * angles.size() dimensions of a head in place.
void rotate(std::span<float> head, const RopeTable& rope, std::int64_t position);

}  // namespace a2sf::reference
