// The cold tier of one sequence (ColdTier of policy.h): what has left its heads by score and may come back, and by
// which queries.
#pragma once

#include <span>
#include <vector>

#include "cache/sequence_cache.h"

namespace a2sf {

// Every second of the last rows chooses what comes back: neighbours ask for much the same.
inline constexpr int kRecentRows = 16, kRecallRows = 8;

// The queries of a KV head's group in the last rows. A row's place is its position modulo kRecentRows.
struct RecentQueries {
  float* queries;   // [kRecentRows][group][padded dim]: rotated
  float* log_sums;  // [kRecentRows][group]: the softmax over a slot's logit x is 2^(x - log_sum), x to base 2
  int group, dim;

  float* query(std::int64_t position, int query_head) const { return queries + place(position, query_head) * dim; }
  float& log_sum(std::int64_t position, int query_head) const { return log_sums[place(position, query_head)]; }
  // The position of the row number i that chooses after the row at `now`, the latest first; negative: there is none.
  static std::int64_t row(std::int64_t now, int i) { return now - std::int64_t{i} * (kRecentRows / kRecallRows); }

 private:
  std::ptrdiff_t place(std::int64_t position, int query_head) const {
    return static_cast<std::ptrdiff_t>(position % kRecentRows) * group + query_head;
  }
};

// One KV head. A view. Different heads may be used by different threads at once.
struct ColdHead {
  HeadCache* tokens;
  RecentQueries recent;

  // A copy of a token that leaves `from`. Where there is no room, the token goes for good that was least often
  // recalled, of equal ones the oldest. There must be room for one token.
  void take(const HeadCache& from, int slot) const;
};

// How often a token was recalled: its last number, in both tiers.
inline float& recalls(HeadCache& head, int slot) { return head.number(slot, head.numbers() - 1); }

// Not thread safe across calls.
class ColdStore {
 public:
  ColdStore() = default;  // none
  // `shape`, with the number for recalls() included, is that of the sequence's own cache; `group`: query heads of a KV
  // head. `plans`: [layer][kv head]. Takes no memory yet.
  ColdStore(Memory& memory, CacheShape shape, int group, const SlotPlans& plans);

  bool exists() const { return group_ > 0; }
  ColdHead head(int layer, int kv_head);
  // Makes room for so many tokens more in each head ([layer][kv head]), as far as its plan allows.
  Status make_room(std::span<const std::int64_t> tokens);
  std::int64_t most_slots() const { return cache_.most_room(); }  // of a head
  Result<ColdStore> clone() const;                                // the same bytes, in memory of its own
  std::size_t bytes() const { return cache_.bytes() + recent_.bytes(); }

 private:
  std::size_t recent_floats() const;  // of one head
  Status take_recent();

  Memory* memory_ = nullptr;
  SequenceCache cache_;
  OwnedBuffer recent_;  // [layer][kv head]: queries, then log sums
  int group_ = 0;
};

// What the queries of the last rows take.
std::size_t recent_bytes(const CacheShape& shape, int group);

}  // namespace a2sf
