// The definition of attend: one row of one KV head, in plain C++ and double precision.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "cache/cold_tier.h"
#include "kernels/backend.h"

namespace a2sf::reference {

// A token that a row has made leave, and what the row gave it, summed over the group: 0 if it had left before the row.
struct Victim {
  int slot;
  float probability;
};

// Calls leave(victim) for each token that goes; it must free the slot.
using Leave = std::function<void(const Victim&)>;

// The cold tier of a head, and how many of its tokens may come back before the row attends. `leave` hears of those that
// change places with them, and frees nothing.
struct Recall {
  HeadCache* tokens;
  std::int64_t most;
  Leave leave;
};

// One row of one KV head's group. q, out: [group][head_dim], rotated already.
struct Row {
  HeadCache* head;
  const HeadRule* rule;
  std::int64_t block;
  std::int64_t position;
  int group, head_dim, window;
  float scale;
  bool may_evict;  // false inside a prompt under block = prompt
  bool evict_all;  // the last row of such a prompt: down to the budget at once
  std::span<const float> q, k, v;
  std::span<float> out;
  // Asked which of two slots to evict where their scores are a near tie; nullptr: the exact rule.
  const std::vector<std::int32_t>* follow = nullptr;  // positions another implementation evicted in this row
  std::optional<Recall> cold = {};
  const TokenClass* token_class = nullptr;  // of the row's own token, where the rule has classes
};

// Steps 0 to 4 of the semantics, step 4 but for hooks. False, and no score has changed, if the key, the value or a
// logit is not finite.
bool attend(const Row& row, const Leave& leave);
// In parts, for rows that somebody looks at in between: step 0; steps 1 to 3, which return the probabilities [slots
// used] of the row, summed over the group, or nothing as above; and step 4.
void expire(const Row& row, const Leave& leave);
std::optional<std::vector<double>> attend_and_score(const Row& row);
void evict(const Row& row, const std::vector<double>& probabilities, const Leave& leave);

// Rotates the leading 2 * angles.size() dimensions of a head in place.
void rotate(std::span<float> head, const RopeTable& rope, std::int64_t position);

}  // namespace a2sf::reference
