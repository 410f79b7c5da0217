// Which cold tokens come back, and for which: written once for all hosts.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "cache/cold_tier.h"
#include "policy/retention.h"

namespace a2sf {

// What a row finds, the rows to come may read on from: so many tokens from where it looks.
inline constexpr int kRecallReach = 4;

// Tokens come back before one row in so many, by position, and before a prompt's last.
inline std::int64_t recall_every(std::int64_t block) { return std::clamp<std::int64_t>(block / 4, 1, kRecallReach); }

struct RecallCandidate {
  float wanted;  // times weight
  std::int32_t position;
  int slot;
};

// Memory of the caller's, kept from call to call.
struct RecallChoice {
  std::vector<RecallCandidate> cold, head;  // cold[i] and head[i] change places
  std::vector<float> additions;             // kRecallReach - 1 zeros, then [position]
  std::vector<float> wanted;                // [position]
};

// Chooses before the row at `now` attends, which its head holds already. `of_head`, `of_cold`: [slot], what the row
// would add to each token's score. A token is wanted as much as the most wanted of itself and the kRecallReach - 1
// tokens before it: text is read on from where it is looked up, and the next rows may not choose. The most wanted cold
// tokens (times weight) come, at most `most`, of equal ones the older; each takes the place of the least wanted one
// that may go, as long as that is wanted less.
void choose_recalled(const HeadCache& head, const HeadCache& cold, const HeadRule& rule, std::int64_t now,
                     std::int64_t most, std::span<const float> of_head, std::span<const float> of_cold,
                     RecallChoice& choice);

// The tokens of choice number i change places.
void recall(HeadCache& head, HeadCache& cold, const HeadRule& rule, std::int64_t now, const RecallChoice& choice,
            std::size_t i);

}  // namespace a2sf
