// SequenceStore on the GPU.
#pragma once

#include <optional>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/device_cache.h"
#include "kernels/sequence_store.h"

namespace a2sf::cuda {

class CudaStore final : public SequenceStore {
 public:
  CudaStore(Device& device, const SequenceShape& shape, ResolvedRetention resolved);

  const Retention& retention() const override { return retention_; }
  Status make_room(std::int64_t tokens, bool prompt) override;
  Status end_prompt() override;
  Result<std::unique_ptr<SequenceStore>> clone() const override;
  Status resize(ResolvedRetention resized, std::span<const std::int32_t> token_ids) override;
  std::vector<RetainedToken> snapshot(int layer, int kv_head) const override;
  std::size_t bytes() const override { return cache_ ? cache_->bytes() : 0; }
  std::size_t cold_bytes() const override { return 0; }
  std::size_t peak_bytes() const override { return peak_bytes_; }
  void record_evictions() override { records_ = true; }
  std::vector<Eviction> drain_evictions(int layer, int kv_head) override;
  Status observe(std::shared_ptr<Observer> observer, const HookNeeds& needs) override;
  Status add_shadow(std::unique_ptr<SequenceStore> shadow, std::shared_ptr<ShadowObserver> observer) override;

  // ---- for the backend; after make_room()

  const SequenceShape& shape() const { return shape_; }

  void note_heads(AttendedHeads& heads) const;  // adds its own
  DeviceSequence view() const { return cache_->view(); }
  std::int64_t most_used(std::int64_t tokens) const { return cache_->most_used(tokens); }
  void advance(std::int64_t tokens) { cache_->advance(tokens); }  // a step with so many has begun

 private:
  void note_peak(std::size_t extra = 0) { peak_bytes_ = std::max(peak_bytes_, bytes() + extra); }
  std::size_t index(int layer, int kv_head) const {
    return static_cast<std::size_t>(layer * shape_.kv_heads + kv_head);
  }
  Status rebuild(const Retention& retention, const SlotPlans& plans, std::int64_t now);

  Device* device_;
  SequenceShape shape_;
  Retention retention_;
  SlotPlans slots_, bounded_slots_;   // while rows run, and after a prompt under block = prompt
  bool holds_prompt_;                 // the cache is as a prompt under block = prompt needs it
  std::optional<DeviceCache> cache_;  // none before the first token
  std::size_t peak_bytes_ = 0;
  bool records_ = false;
  std::vector<std::vector<Eviction>> evictions_;  // [layer][kv head]
};

}  // namespace a2sf::cuda
