// The cold tier of one sequence (ColdTier of policy.h): what has left its heads by score and may come back.
#pragma once

#include "cache/sequence_cache.h"

namespace a2sf {

// How often a token was recalled: its last number, in both tiers.
inline float& recalls(HeadCache& head, int slot) { return head.number(slot, head.numbers() - 1); }

// A copy of a token that leaves `from` goes into the cold tier of its head. Where there is no room, the token goes for
// good that was least often recalled, of equal ones the oldest. There must be room for one token.
void chill(HeadCache& cold, const HeadCache& from, int slot);

}  // namespace a2sf
