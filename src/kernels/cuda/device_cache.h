// The slots of one sequence in the GPU's memory.
#pragma once

#include <span>
#include <vector>

#include "cache/sequence_cache.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/head.h"
#include "kernels/sequence_store.h"

namespace a2sf::cuda {

// Grows in chunks as SequenceCache does. Not thread safe.
class DeviceCache {
 public:
  explicit DeviceCache(Device& device, const CacheShape& shape = {}, std::vector<int> windows = {})
      : device_(&device), shape_(shape), windows_(std::move(windows)) {}
  // No tokens yet; takes memory for the heads alone. windows: SequenceShape::windows.
  static Result<DeviceCache> create(Device& device, const CacheShape& shape, std::vector<int> windows,
                                    const Retention& retention, const SlotPlans& plans);

  // Room for `tokens` more in every head. An error: nothing has changed.
  Status make_room(std::int64_t tokens);
  // `tokens` more are there, of those that there is room for.
  void advance(std::int64_t tokens);
  // The same bytes in memory of its own.
  Result<DeviceCache> clone() const;
  // All tokens in a cache of other rules and plans. Where heads hold more than these allow, the lowest scores go first,
  // from this cache too, after the row at `now` (negative: none do). It fails before anything has changed, or because
  // the GPU does.
  Result<DeviceCache> rebuilt(const Retention& retention, const SlotPlans& plans, std::int64_t now);

  // Waits for what the GPU has to do.
  Result<std::vector<DeviceHead>> heads() const;
  std::vector<RetainedToken> snapshot(int head) const;  // in order of position; of a GPU that failed: none

  // Room for a log of `entries` more of each head, whose entries so far are in `collected` then ([head]).
  Status keep_log(std::int64_t entries, std::span<std::vector<Eviction>> collected);
  Status collect_log(std::span<std::vector<Eviction>> collected);

  DeviceSequence view() const;
  // The most slots that a head uses once it holds `tokens` more.
  std::int64_t most_used(std::int64_t tokens) const;
  std::size_t bytes() const;  // as SequenceCache counts them

 private:
  int head_count() const { return shape_.layers * shape_.kv_heads; }
  bool is_f16() const { return shape_.type == KvType::f16; }
  Status grow(std::span<const std::int64_t> needed);
  Status take_fixed_memory();

  Device* device_;
  CacheShape shape_;
  std::vector<int> windows_;
  SlotPlans plans_;
  std::vector<std::int64_t> used_;               // [head]: at most so many slots are
  std::vector<std::int64_t> room_;               // [head]: slots that exist
  std::vector<std::vector<std::byte*>> chunks_;  // [head]
  OwnedBuffer heads_, table_, mean_values_, log_;
  int chunks_per_head_ = 0;
  int log_capacity_ = 0;
  std::vector<OwnedBuffer> slabs_;
};

}  // namespace a2sf::cuda
