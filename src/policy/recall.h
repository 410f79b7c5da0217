// Which cold tokens come back, and for which: written once for all hosts.
#pragma once

#include <span>
#include <vector>

#include "cache/cold_store.h"
#include "policy/retention.h"

namespace a2sf {

// Memory of the caller's, kept from call to call.
struct RecallChoice {
  std::vector<int> cold, head;  // slots: those of cold[i] and head[i] change places
};

// Chooses after the row at `now`. `additions`: [cold slot], the most that one of the last rows would have added to the
// token's score beside what the head held then. The highest (times weight) come, at most `most`, of equal ones the
// older; each takes the place of the lowest score that may go, the lowest first, as long as that is lower.
void choose_recalled(const HeadCache& head, const HeadCache& cold, const HeadRule& rule, std::int64_t now,
                     std::int64_t most, std::span<const float> additions, RecallChoice& choice);

// The tokens of choice number i change places.
void recall(HeadCache& head, HeadCache& cold, const HeadRule& rule, std::int64_t now, std::span<const float> additions,
            const RecallChoice& choice, std::size_t i);

}  // namespace a2sf
