#include "kernels/cuda/cuda_store.h"

#include <algorithm>
#include <utility>

#include "kernels/host/host_store.h"

namespace a2sf::cuda {

CudaStore::CudaStore(Device& device, const SequenceShape& shape, ResolvedRetention resolved)
    : device_(&device),
      shape_(shape),
      retention_(std::move(resolved.retention)),
      slots_(std::move(resolved.slots)),
      bounded_slots_(std::move(resolved.bounded_slots)),
      holds_prompt_(retention_.whole_prompt),
      evictions_(retention_.rules.size()) {}

// The old cache goes when the new one is there.
Status CudaStore::rebuild(const Retention& retention, const SlotPlans& plans, std::int64_t now) {
  if (!cache_) return {};
  if (records_) {
    if (auto kept = cache_->keep_log(0, evictions_); !kept) return kept;
  }
  auto rebuilt = cache_->rebuilt(retention, plans, now);
  if (!rebuilt) return tl::unexpected(rebuilt.error());
  if (auto read = cache_->collect_log(evictions_); !read) return read;
  note_peak(rebuilt->bytes());
  cache_ = std::move(*rebuilt);
  return {};
}

Status CudaStore::make_room(std::int64_t tokens, bool prompt) {
  if (!cache_) {
    auto made = DeviceCache::create(*device_, cache_shape(shape_, retention_), shape_.windows, retention_,
                                    retention_.whole_prompt && !holds_prompt_ ? bounded_slots_ : slots_);
    if (!made) return tl::unexpected(made.error());
    cache_ = std::move(*made);
  }
  // A later user turn under block = prompt: the bounded cache grows again for its prompt.
  if (retention_.whole_prompt && prompt && !holds_prompt_) {
    if (auto grown = rebuild(retention_, slots_, -1); !grown) return grown;
    holds_prompt_ = true;
  }
  if (auto room = cache_->make_room(tokens); !room) return room;
  if (records_) {
    if (auto kept = cache_->keep_log(tokens, evictions_); !kept) return kept;
  }
  note_peak();
  return {};
}

Status CudaStore::end_prompt() {
  if (!retention_.whole_prompt || !holds_prompt_) return {};
  if (auto compacted = rebuild(retention_, bounded_slots_, -1); !compacted) return compacted;
  holds_prompt_ = false;
  return {};
}

Result<std::unique_ptr<SequenceStore>> CudaStore::clone() const {
  auto copy = std::make_unique<CudaStore>(*device_, shape_, ResolvedRetention{retention_, slots_, bounded_slots_});
  if (cache_) {
    auto cache = cache_->clone();
    if (!cache) return tl::unexpected(cache.error());
    copy->cache_ = std::move(*cache);
  }
  copy->holds_prompt_ = holds_prompt_;
  copy->records_ = records_;
  copy->evictions_ = evictions_;
  copy->note_peak();
  return copy;
}

Status CudaStore::resize(ResolvedRetention resized, std::span<const std::int32_t> token_ids) {
  const auto now = static_cast<std::int64_t>(token_ids.size()) - 1;
  if (auto rebuilt = rebuild(resized.retention, resized.bounded_slots, now); !rebuilt) return rebuilt;
  holds_prompt_ = false;
  retention_ = std::move(resized.retention);
  slots_ = std::move(resized.slots);
  bounded_slots_ = std::move(resized.bounded_slots);
  return {};
}

void CudaStore::note_heads(AttendedHeads& heads) const {
  for (const HeadRule& rule : retention_.rules) {
    const bool fast = is_fast(rule.mode, shape_.type == KvType::f16, shape_.head_dim);
    const bool scores = rule.mode == RetentionMode::score;
    (!fast ? heads.slow : scores ? heads.scoring : heads.other) = true;
  }
}

std::vector<RetainedToken> CudaStore::snapshot(int layer, int kv_head) const {
  return cache_ ? cache_->snapshot(static_cast<int>(index(layer, kv_head))) : std::vector<RetainedToken>();
}

std::vector<Eviction> CudaStore::drain_evictions(int layer, int kv_head) {
  if (cache_ && !cache_->collect_log(evictions_)) return {};
  return std::exchange(evictions_[index(layer, kv_head)], {});
}

Status CudaStore::observe(std::shared_ptr<Observer> observer, const HookNeeds&) {
  if (observer == nullptr) return {};
  return fail(ErrorKind::unsupported, "device 'cuda' runs no observers: use --device cpu");
}

Status CudaStore::add_shadow(std::unique_ptr<SequenceStore>, std::shared_ptr<ShadowObserver>) {
  return fail(ErrorKind::unsupported, "device 'cuda' has no shadows: use --device cpu");
}

}  // namespace a2sf::cuda
