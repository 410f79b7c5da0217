#include "kernels/host/host_store.h"

#include <algorithm>
#include <utility>

#include "core/reserve.h"
#include "kernels/host/watch.h"
#include "policy/recall.h"

namespace a2sf {

std::size_t QueryHistory::bytes_for(const SequenceShape& shape, int last_rows) {
  return sizeof(float) * static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(last_rows) *
         static_cast<std::size_t>(shape.heads) * static_cast<std::size_t>(shape.head_dim);
}

Status QueryHistory::keep(Memory& memory, const SequenceShape& shape, int last_rows) {
  QueryHistory larger;
  auto buffer = OwnedBuffer::create(memory, bytes_for(shape, last_rows));
  if (!buffer) return tl::unexpected(buffer.error());
  larger.buffer_ = std::move(*buffer);
  larger.shape_ = shape;
  larger.last_rows_ = last_rows;
  larger.positions_.assign(static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(last_rows), -1);
  for (std::size_t i = 0; i < positions_.size(); ++i) {
    const std::int64_t position = positions_[i];
    const int layer = static_cast<int>(i) / last_rows_;
    if (position < 0 || larger.positions_[larger.row(layer, position)] > position) continue;
    larger.begin(layer, position);
    std::copy_n(at(i, 0), shape.heads * shape.head_dim, larger.place(layer, position, 0));
  }
  *this = std::move(larger);
  return {};
}

Result<QueryHistory> QueryHistory::clone(Memory& memory) const {
  QueryHistory copy;
  if (last_rows_ == 0) return copy;
  if (auto kept = copy.keep(memory, shape_, last_rows_); !kept) return tl::unexpected(kept.error());
  memory.copy(copy.buffer_.data(), buffer_.data(), buffer_.bytes());
  copy.positions_ = positions_;
  return copy;
}

CacheShape cache_shape(const SequenceShape& shape, const Retention& retention) {
  CacheShape cache{shape.layers, shape.kv_heads, shape.head_dim, shape.type};
  cache.weighs_values = std::any_of(retention.rules.begin(), retention.rules.end(),
                                    [](const HeadRule& rule) { return rule.value_weight; });
  cache.numbers = retention.hook != nullptr ? retention.hook->needs().numbers : cache.weighs_values ? 1 : 0;
  if (retention.classes != nullptr) cache.numbers += kClassNumbers;
  if (retention.cold.tokens > 0) ++cache.numbers;  // recalls()
  return cache;
}

// Layers with a window have none.
SlotPlans cold_plans(const SequenceShape& shape, const Retention& retention) {
  SlotPlans plans;
  for (const int window : shape.windows) {
    const std::int64_t most = window > 0 ? 0 : retention.cold.tokens;
    plans.insert(plans.end(), static_cast<std::size_t>(shape.kv_heads),
                 most < kKeepAll ? SlotPlan::bounded(most) : SlotPlan());
  }
  return plans;
}

HostStore::HostStore(Memory& memory, const SequenceShape& shape, ResolvedRetention resolved)
    : memory_(&memory), shape_(shape) {
  set(std::move(resolved));
  holds_prompt_ = retention_.whole_prompt;
  cache_ = SequenceCache(memory, cache_shape(shape, retention_), slots_);
  evictions_.resize(retention_.rules.size());
  departed_.resize(retention_.rules.size());
  if (retention_.cold.tokens > 0) {
    CacheShape cold = cache_.shape();
    cold.weighs_values = false;  // each token's weight comes with it
    cold_ = SequenceCache(memory, cold, cold_plans(shape, retention_));
    cold_room_.resize(retention_.rules.size());
  }
  if (retention_.hook == nullptr) return;
  needs_ = retention_.hook->needs();
  hook_ = retention_.hook->make({shape.layers, shape.heads, shape.kv_heads, shape.head_dim});
}

void HostStore::set(ResolvedRetention resolved) {
  retention_ = std::move(resolved.retention);
  slots_ = std::move(resolved.slots);
  bounded_slots_ = std::move(resolved.bounded_slots);
}

std::size_t HostStore::bytes() const {
  std::size_t bytes = cache_.bytes() + cold_.bytes() + queries_.bytes();
  for (const Shadow& shadow : shadows_) bytes += shadow.store->bytes();
  return bytes;
}

void HostStore::note_peak(std::size_t extra) { peak_bytes_ = std::max(peak_bytes_, bytes() + extra); }

// The old one goes when the new one is there.
void HostStore::replace_cache(SequenceCache rebuilt) {
  note_peak(rebuilt.bytes());
  cache_ = std::move(rebuilt);
}

Status HostStore::keep_queries() {
  const int wanted = std::max(needs_.last_rows, observer_needs_.last_rows);
  return wanted <= queries_.last_rows() ? Status() : queries_.keep(*memory_, shape_, wanted);
}

Status HostStore::make_room(std::int64_t tokens, bool prompt) {
  // A later user turn under block = prompt: the bounded cache grows again for its prompt.
  if (retention_.whole_prompt && prompt && !holds_prompt_) {
    auto grown = cache_.rebuilt(slots_);
    if (!grown) return tl::unexpected(grown.error());
    replace_cache(std::move(*grown));
    holds_prompt_ = true;
  }
  if (auto room = cache_.make_room(tokens); !room) return room;
  if (auto room = make_cold_room(retention_, tokens); !room) return room;
  if (auto kept = keep_queries(); !kept) return kept;
  for (std::size_t i = 0; keeps_record() && i < evictions_.size(); ++i) {
    const std::int64_t held = head_at(i).occupied() + tokens;
    const std::int64_t recalls = cold_room_.empty() ? 0 : tokens / recall_every(retention_.block) + 2;
    const auto most = static_cast<std::size_t>(held + recalls * std::min(held, retention_.cold.recall));
    if (records_) reserve_amortised(evictions_[i], evictions_[i].size() + most);
    if (is_watched()) reserve_amortised(departed_[i], most);
  }
  for (const Shadow& shadow : shadows_) {
    if (auto room = shadow.store->make_room(tokens, prompt); !room) return room;
  }
  note_peak();
  return {};
}

// For all that `tokens` more may evict under these rules.
Status HostStore::make_cold_room(const Retention& retention, std::int64_t tokens) {
  if (cold_room_.empty()) return {};
  for (std::size_t i = 0; i < cold_room_.size(); ++i) {
    const HeadRule& rule = retention.rules[i];
    const std::int64_t excess = head_at(i).occupied() + tokens - rule.budget;
    cold_room_[i] = rule.mode == RetentionMode::score ? std::max<std::int64_t>(0, excess) : 0;
  }
  return cold_.make_room(cold_room_);
}

Status HostStore::end_prompt() {
  if (retention_.whole_prompt && holds_prompt_) {
    auto compacted = cache_.rebuilt(bounded_slots_);
    if (!compacted) return tl::unexpected(compacted.error());
    replace_cache(std::move(*compacted));
    holds_prompt_ = false;
  }
  for (const Shadow& shadow : shadows_) {
    if (auto ended = shadow.store->end_prompt(); !ended) return ended;
    note_peak(shadow.store->peak_bytes() - shadow.store->bytes());
  }
  return {};
}

Result<std::unique_ptr<SequenceStore>> HostStore::clone() const {
  auto cache = cache_.clone();
  if (!cache) return tl::unexpected(cache.error());
  auto queries = queries_.clone(*memory_);
  if (!queries) return tl::unexpected(queries.error());
  auto cold = cold_.clone();
  if (!cold) return tl::unexpected(cold.error());
  auto copy = std::make_unique<HostStore>(*memory_, shape_, ResolvedRetention{retention_, slots_, bounded_slots_});
  copy->holds_prompt_ = holds_prompt_;
  copy->cache_ = std::move(*cache);
  copy->queries_ = std::move(*queries);
  copy->cold_ = std::move(*cold);
  copy->records_ = records_;
  copy->evictions_ = evictions_;
  if (hook_ != nullptr) copy->hook_ = hook_->clone();
  copy->note_peak();
  return copy;
}

// The hook decides on a copy, since it may change what it keeps and the new cache may not come to be.
Result<std::unique_ptr<HostStore>> HostStore::chosen_by_hook(const Retention& resized,
                                                             std::span<const std::int32_t> token_ids) const {
  auto copy = clone();
  if (!copy) return tl::unexpected(copy.error());
  std::unique_ptr<HostStore> chosen(static_cast<HostStore*>(copy->release()));
  chosen->retention_ = resized;
  chosen->records_ = true;
  for (auto& evictions : chosen->evictions_) evictions.clear();
  for (int layer = 0; layer < shape_.layers && !token_ids.empty(); ++layer) {
    PlainProbabilities probabilities;
    LayerWatch watch(*chosen, {layer, static_cast<std::int64_t>(token_ids.size()) - 1, token_ids}, probabilities);
    if (!watch.is_over_budget(0)) continue;
    if (auto evicted = watch.evict(); !evicted) return tl::unexpected(evicted.error());
    tell_who_left(*chosen, layer);
  }
  return chosen;
}

// What a smaller budget evicts at once by score.
std::vector<std::vector<int>> HostStore::excess(const Retention& resized, std::int64_t position) const {
  std::vector<std::vector<int>> victims(resized.rules.size());
  for (std::size_t i = 0; i < victims.size() && position > 0; ++i) {
    const HeadCache& head = head_at(i);
    const HeadRule& rule = resized.rules[i];
    if (rule.mode == RetentionMode::score)
      select_victims(head, rule, position - 1, head.occupied() - rule.budget, victims[i]);
  }
  return victims;
}

Status HostStore::resize(ResolvedRetention resized, std::span<const std::int32_t> token_ids) {
  const auto now = static_cast<std::int64_t>(token_ids.size()) - 1;
  std::unique_ptr<HostStore> chosen;
  if (hook_ != nullptr) {
    auto choice = chosen_by_hook(resized.retention, token_ids);
    if (!choice) return tl::unexpected(choice.error());
    chosen = std::move(*choice);
  }
  const auto victims = excess(resized.retention, now + 1);
  auto rebuilt = (chosen != nullptr ? chosen->cache_ : cache_).rebuilt(resized.bounded_slots, victims);
  if (!rebuilt) return tl::unexpected(rebuilt.error());
  if (auto room = make_cold_room(resized.retention, 0); !room) return room;
  std::vector<std::vector<Eviction>> gone(victims.size());
  for (std::size_t i = 0; i < victims.size(); ++i) {
    if (chosen != nullptr) gone[i] = std::move(chosen->evictions_[i]);
    for (const int slot : victims[i])
      gone[i].push_back({head_at(i).position(slot), static_cast<std::int32_t>(now), head_at(i).score(slot), 0});
    if (records_) evictions_[i].reserve(evictions_[i].size() + gone[i].size());
  }
  // From here on nothing can fail.
  if (chosen != nullptr) {
    note_peak(chosen->bytes() + rebuilt->bytes());
    hook_ = std::move(chosen->hook_);
  }
  chill(victims);
  replace_cache(std::move(*rebuilt));
  holds_prompt_ = false;
  set(std::move(resized));
  for (std::size_t i = 0; records_ && i < gone.size(); ++i)
    evictions_[i].insert(evictions_[i].end(), gone[i].begin(), gone[i].end());
  for (std::size_t i = 0; observer_ != nullptr && i < gone.size(); ++i) tell(i, gone[i]);
  return {};
}

// Victims of a resize, each from the head that still holds it.
void HostStore::chill(std::span<const std::vector<int>> victims) {
  for (std::size_t i = 0; i < victims.size(); ++i) {
    const int layer = static_cast<int>(i) / shape_.kv_heads, kv_head = static_cast<int>(i) % shape_.kv_heads;
    for (const int slot : victims[i]) {
      if (has_cold_tier(layer)) a2sf::chill(cold(layer, kv_head), head_at(i), slot);
    }
  }
}

// An observer without memory for what it is told misses it: what has gone has gone.
void HostStore::tell(std::size_t head, std::span<const Eviction> gone) const try {
  const int layer = static_cast<int>(head) / shape_.kv_heads, kv_head = static_cast<int>(head) % shape_.kv_heads;
  for (const Eviction& eviction : gone) observer_->left(layer, kv_head, eviction);
} catch (const std::bad_alloc&) {
}

std::vector<RetainedToken> HostStore::snapshot(int layer, int kv_head) const {
  const HeadCache& head = cache_.head(layer, kv_head);
  std::vector<RetainedToken> tokens;
  for (const int slot : head.slots_by_position()) tokens.push_back({head.position(slot), head.score(slot)});
  return tokens;
}

std::vector<Eviction> HostStore::drain_evictions(int layer, int kv_head) {
  return std::exchange(evictions_[index(layer, kv_head)], {});
}

Status HostStore::observe(std::shared_ptr<Observer> observer, const HookNeeds& needs) {
  observer_ = std::move(observer);
  observer_needs_ = observer_ == nullptr ? HookNeeds{} : needs;
  return {};
}

Status HostStore::add_shadow(std::unique_ptr<SequenceStore> shadow, std::shared_ptr<ShadowObserver> observer) {
  std::unique_ptr<HostStore> store(static_cast<HostStore*>(shadow.release()));
  shadows_.push_back({std::move(store), std::move(observer)});
  return {};
}

void HostStore::release(int layer, int kv_head, int slot, std::int64_t now, float probability) {
  record(layer, kv_head, slot, now, probability);
  HeadCache& head = cache_.head(layer, kv_head);
  if (has_cold_tier(layer)) a2sf::chill(cold(layer, kv_head), head, slot);
  head.release(slot);
}

void HostStore::record(int layer, int kv_head, int slot, std::int64_t now, float probability) {
  const HeadCache& head = cache_.head(layer, kv_head);
  const Eviction eviction{head.position(slot), static_cast<std::int32_t>(now), head.score(slot), probability};
  if (records_) evictions_[index(layer, kv_head)].push_back(eviction);
  if (is_watched()) departed_[index(layer, kv_head)].push_back(eviction);
}

}  // namespace a2sf
