// The slots of one sequence in the host's memory: what the CPU and the reference work on.
#pragma once

#include <optional>

#include "cache/cold_tier.h"
#include "cache/sequence_cache.h"
#include "core/memory.h"
#include "kernels/sequence_store.h"

namespace a2sf {

class HostStore;

struct Shadow {
  std::unique_ptr<HostStore> store;
  std::shared_ptr<ShadowObserver> observer;
};

// The rotated queries of the last rows, as long as somebody wants to see them.
class QueryHistory {
 public:
  static std::size_t bytes_for(const SequenceShape& shape, int last_rows);

  // Room for so many rows; what is known stays.
  Status keep(Memory& memory, const SequenceShape& shape, int last_rows);
  Result<QueryHistory> clone(Memory& memory) const;
  int last_rows() const { return last_rows_; }
  std::size_t bytes() const { return buffer_.bytes(); }
  bool has(int layer, std::int64_t position) const {
    return last_rows_ > 0 && position >= 0 && positions_[row(layer, position)] == position;
  }
  const float* query(int layer, std::int64_t position, int head) const { return at(row(layer, position), head); }
  // Where the query is written to; from then on the history has the position. One call for the first head comes before
  // those for the others, which may come from several threads.
  void begin(int layer, std::int64_t position) { positions_[row(layer, position)] = position; }
  float* place(int layer, std::int64_t position, int head) { return at(row(layer, position), head); }

 private:
  std::size_t row(int layer, std::int64_t position) const {
    return static_cast<std::size_t>(layer) * static_cast<std::size_t>(last_rows_) +
           static_cast<std::size_t>(position % last_rows_);
  }
  float* at(std::size_t row, int head) const {
    return reinterpret_cast<float*>(buffer_.data()) +
           (row * static_cast<std::size_t>(shape_.heads) + static_cast<std::size_t>(head)) *
               static_cast<std::size_t>(shape_.head_dim);
  }

  OwnedBuffer buffer_;                   // [layer][row, modulo last_rows][head][head dim]
  std::vector<std::int64_t> positions_;  // [layer][row]: whose queries they are, -1: nobody's
  SequenceShape shape_{};
  int last_rows_ = 0;
};

// The cache that a sequence under these rules needs.
CacheShape cache_shape(const SequenceShape& shape, const Retention& retention);
SlotPlans cold_plans(const SequenceShape& shape, const Retention& retention);  // of its cold tier

class HostStore final : public SequenceStore {
 public:
  HostStore(Memory& memory, const SequenceShape& shape, ResolvedRetention resolved);

  const Retention& retention() const override { return retention_; }
  Status make_room(std::int64_t tokens, bool prompt) override;
  Status end_prompt() override;
  Result<std::unique_ptr<SequenceStore>> clone() const override;
  Status resize(ResolvedRetention resized, std::span<const std::int32_t> token_ids) override;
  std::vector<RetainedToken> snapshot(int layer, int kv_head) const override;
  std::size_t bytes() const override;
  std::size_t peak_bytes() const override { return peak_bytes_; }
  std::size_t cold_bytes() const override { return cold_.bytes(); }
  void record_evictions() override { records_ = true; }
  std::vector<Eviction> drain_evictions(int layer, int kv_head) override;
  Status observe(std::shared_ptr<Observer> observer, const HookNeeds& needs) override;
  Status add_shadow(std::unique_ptr<SequenceStore> shadow, std::shared_ptr<ShadowObserver> observer) override;

  // ---- for the kernels of a host

  const SequenceShape& shape() const { return shape_; }
  HeadCache& head(int layer, int kv_head) { return cache_.head(layer, kv_head); }
  const HeadCache& head(int layer, int kv_head) const { return cache_.head(layer, kv_head); }
  // The most slots that a head uses once it holds `tokens` more.
  std::int64_t most_used(std::int64_t tokens) const { return cache_.most_used(tokens); }
  // Of a token, where the rules have classes.
  const TokenClass& class_of(std::int32_t token) const { return retention_.classes->of(token); }
  // The token in the slot leaves after the row at `now`, which gave it `probability`: recorded, and the slot is free.
  // It goes into the head's cold tier where there is one. Different heads may do so at once.
  void release(int layer, int kv_head, int slot, std::int64_t now, float probability);
  // Only records that it leaves.
  void record(int layer, int kv_head, int slot, std::int64_t now, float probability);
  // Whether what leaves heads of the layer by score may come back.
  bool has_cold_tier(int layer) const {
    return !cold_room_.empty() && shape_.windows[static_cast<std::size_t>(layer)] == 0;
  }
  // The most slots that a head of the cold tier uses once it has taken what make_room() was told of.
  std::int64_t most_cold_slots() const { return cold_.most_room(); }
  HeadCache& cold(int layer, int kv_head) { return cold_.head(layer, kv_head); }

  // Whether anybody asks what release() is told.
  bool keeps_record() const { return records_ || is_watched(); }
  // Whether somebody wants to see the layers, so that rows are computed as watch.h says.
  bool is_watched() const { return hook_ != nullptr || observer_ != nullptr; }
  bool wants_every_row() const { return needs_.every_row || observer_needs_.every_row; }
  Hook* hook() const { return hook_.get(); }
  const HookNeeds& hook_needs() const { return needs_; }
  Observer* observer() const { return observer_.get(); }
  const HookNeeds& observer_needs() const { return observer_needs_; }
  QueryHistory& queries() { return queries_; }
  const QueryHistory& queries() const { return queries_; }
  // Tokens that have left a head and nobody was told of yet, in the order in which they went.
  std::vector<Eviction>& departed(int layer, int kv_head) { return departed_[index(layer, kv_head)]; }
  std::span<const Shadow> shadows() const { return shadows_; }

 private:
  std::size_t index(int layer, int kv_head) const {
    return static_cast<std::size_t>(layer * shape_.kv_heads + kv_head);
  }
  const HeadCache& head_at(std::size_t i) const {
    return cache_.head(static_cast<int>(i) / shape_.kv_heads, static_cast<int>(i) % shape_.kv_heads);
  }
  void tell(std::size_t head, std::span<const Eviction> gone) const;
  void note_peak(std::size_t extra = 0);
  void replace_cache(SequenceCache rebuilt);
  void set(ResolvedRetention resolved);
  Status keep_queries();
  void chill(std::span<const std::vector<int>> victims);
  Status make_cold_room(const Retention& retention, std::int64_t tokens);
  Result<std::unique_ptr<HostStore>> chosen_by_hook(const Retention& resized,
                                                    std::span<const std::int32_t> token_ids) const;
  std::vector<std::vector<int>> excess(const Retention& resized, std::int64_t position) const;

  Memory* memory_;
  SequenceShape shape_;
  Retention retention_;
  SlotPlans slots_, bounded_slots_;  // while rows run, and after a prompt under block = prompt
  bool holds_prompt_ = false;        // the cache is as a prompt under block = prompt needs it
  SequenceCache cache_;
  SequenceCache cold_;                   // empty: there is no cold tier
  std::vector<std::int64_t> cold_room_;  // [layer][kv head]: tokens that may go there in the next step
  std::size_t peak_bytes_ = 0;
  bool records_ = false;
  std::vector<std::vector<Eviction>> evictions_, departed_;  // [layer][kv head]
  HookNeeds needs_, observer_needs_;
  std::unique_ptr<Hook> hook_;
  std::shared_ptr<Observer> observer_;
  QueryHistory queries_;
  std::vector<Shadow> shadows_;
};

}  // namespace a2sf
