#include "kernels/cuda/device_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <numeric>
#include <utility>

#include "kernels/cuda/rebuild.h"

namespace a2sf::cuda {
namespace {

int to_int(std::int64_t count) { return static_cast<int>(std::min<std::int64_t>(count, INT_MAX)); }

DeviceHead device_head(const HeadRule& rule, const SlotPlan& plan, int window) {
  return {.mode = rule.mode,
          .budget = to_int(rule.budget),
          .first = to_int(std::max(rule.sink, rule.pin)),
          .recent = to_int(rule.recent),
          .alpha = static_cast<float>(rule.alpha),
          .power = static_cast<float>(rule.power),
          .threshold = static_cast<float>(rule.threshold),
          .value_weight = rule.value_weight,
          .window = window,
          .is_ring = plan.kind == SlotPlan::Kind::ring,
          .most = plan.most,
          .used = 0,
          .occupied = 0,
          .free = kNoSlot,
          .values_seen = 0,
          .logged = 0};
}

Result<OwnedBuffer> upload_heads(Device& device, const Retention& retention, const SlotPlans& plans,
                                 std::span<const int> windows) {
  const std::size_t kv_heads = plans.size() / windows.size();
  std::vector<DeviceHead> heads;
  for (std::size_t i = 0; i < plans.size(); ++i)
    heads.push_back(device_head(retention.rules[i], plans[i], windows[i / kv_heads]));
  auto buffer = OwnedBuffer::create(device.memory(), heads.size() * sizeof(DeviceHead));
  if (!buffer) return buffer;
  if (auto copied =
          checked(cudaMemcpy(buffer->data(), heads.data(), buffer->bytes(), cudaMemcpyHostToDevice), "making a cache");
      !copied)
    return tl::unexpected(copied.error());
  return buffer;
}

template <class T>
T* pointer(const OwnedBuffer& buffer) {
  return reinterpret_cast<T*>(buffer.data());
}

}  // namespace

Result<DeviceCache> DeviceCache::create(Device& device, const CacheShape& shape, std::vector<int> windows,
                                        const Retention& retention, const SlotPlans& plans) {
  DeviceCache cache(device, shape, std::move(windows));
  auto heads = upload_heads(device, retention, plans, cache.windows_);
  if (!heads) return tl::unexpected(heads.error());
  cache.heads_ = std::move(*heads);
  cache.plans_ = plans;
  cache.used_.resize(plans.size());
  cache.room_.resize(plans.size());
  cache.chunks_.resize(plans.size());
  return cache;
}

DeviceSequence DeviceCache::view() const {
  return {pointer<DeviceHead>(heads_),  pointer<std::byte*>(table_), chunks_per_head_,
          pointer<float>(mean_values_), pointer<Eviction>(log_),     log_capacity_};
}

std::size_t DeviceCache::bytes() const {
  return std::accumulate(slabs_.begin(), slabs_.end(), mean_values_.bytes(),
                         [](std::size_t sum, const OwnedBuffer& slab) { return sum + slab.bytes(); });
}

std::int64_t DeviceCache::most_used(std::int64_t tokens) const {
  std::int64_t most = 0;
  for (std::size_t i = 0; i < used_.size(); ++i) most = std::max(most, std::min(plans_[i].most, used_[i] + tokens));
  return most;
}

void DeviceCache::advance(std::int64_t tokens) {
  for (std::size_t i = 0; i < used_.size(); ++i) used_[i] = std::min(plans_[i].most, used_[i] + tokens);
}

Status DeviceCache::make_room(std::int64_t tokens) {
  std::vector<std::int64_t> needed(used_.size());
  for (std::size_t i = 0; i < used_.size(); ++i) needed[i] = std::min(plans_[i].most, used_[i] + tokens);
  return grow(needed);
}

Status DeviceCache::take_fixed_memory() {
  if (fixed_bytes(shape_) == 0 || mean_values_.bytes() > 0) return {};
  return reserve(mean_values_, device_->memory(), fixed_bytes(shape_));
}

// What all heads want at once is one slab; the table of chunks is anew.
Status DeviceCache::grow(std::span<const std::int64_t> needed) {
  std::int64_t slots = 0, longest = 0;
  for (std::size_t i = 0; i < room_.size(); ++i) {
    const std::int64_t room = std::max(room_[i], plans_[i].room_for(needed[i]));
    slots += room - room_[i];
    longest = std::max(longest, room);
  }
  if (slots == 0) return {};
  if (auto taken = take_fixed_memory(); !taken) return taken;
  auto slab = OwnedBuffer::create(device_->memory(), static_cast<std::size_t>(slots) * slot_bytes(shape_));
  if (!slab) {
    return fail(slab.error().kind, fmt::format("{}: the cache holds {} MiB already; a smaller budget bounds it",
                                               slab.error().message, bytes() >> 20));
  }
  const auto per_head = static_cast<std::size_t>((longest + kChunk - 1) / kChunk);
  std::vector<std::byte*> table(per_head * room_.size());
  auto chunks = chunks_;
  std::vector<std::int64_t> room = room_;
  std::byte* next = slab->data();
  for (std::size_t i = 0; i < room.size(); ++i) {
    const std::int64_t target = plans_[i].room_for(needed[i]);
    for (; room[i] < target; room[i] += slots_of_chunk(plans_[i].most, static_cast<int>(chunks[i].size()) - 1)) {
      chunks[i].push_back(next);
      next += static_cast<std::size_t>(slots_of_chunk(plans_[i].most, static_cast<int>(chunks[i].size()) - 1)) *
              slot_bytes(shape_);
    }
    std::copy(chunks[i].begin(), chunks[i].end(), table.begin() + static_cast<std::ptrdiff_t>(i * per_head));
  }
  auto device_table = OwnedBuffer::create(device_->memory(), table.size() * sizeof(std::byte*));
  if (!device_table) return tl::unexpected(device_table.error());
  if (auto copied =
          checked(cudaMemcpy(device_table->data(), table.data(), device_table->bytes(), cudaMemcpyHostToDevice),
                  "growing a cache");
      !copied)
    return copied;
  slabs_.reserve(slabs_.size() + 1);
  slabs_.push_back(std::move(*slab));
  table_ = std::move(*device_table);
  chunks_per_head_ = static_cast<int>(per_head);
  chunks_ = std::move(chunks);
  room_ = std::move(room);
  return {};
}

Result<std::vector<DeviceHead>> DeviceCache::heads() const {
  std::vector<DeviceHead> heads(static_cast<std::size_t>(head_count()));
  if (auto copied =
          checked(cudaMemcpy(heads.data(), heads_.data(), heads_.bytes(), cudaMemcpyDeviceToHost), "reading a cache");
      !copied)
    return tl::unexpected(copied.error());
  return heads;
}

Result<DeviceCache> DeviceCache::clone() const {
  DeviceCache copy(*device_, shape_, windows_);
  copy.plans_ = plans_;
  copy.used_ = used_;
  copy.room_.resize(room_.size());
  copy.chunks_.resize(chunks_.size());
  if (auto room = reserve(copy.heads_, device_->memory(), heads_.bytes()); !room) return tl::unexpected(room.error());
  if (auto grown = copy.grow(room_); !grown) return tl::unexpected(grown.error());
  if (auto room = reserve(copy.log_, device_->memory(), log_.bytes()); !room) return tl::unexpected(room.error());
  copy.log_capacity_ = log_capacity_;
  Memory& memory = device_->memory();
  if (log_.bytes() > 0) memory.copy(copy.log_.data(), log_.data(), log_.bytes());
  memory.copy(copy.heads_.data(), heads_.data(), heads_.bytes());
  if (mean_values_.bytes() > 0 && copy.mean_values_.bytes() > 0)
    memory.copy(copy.mean_values_.data(), mean_values_.data(), mean_values_.bytes());
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    for (std::size_t c = 0; c < chunks_[i].size(); ++c) {
      memory.copy(copy.chunks_[i][c], chunks_[i][c],
                  static_cast<std::size_t>(slots_of_chunk(plans_[i].most, static_cast<int>(c))) * slot_bytes(shape_));
    }
  }
  if (auto copied = checked(cudaStreamSynchronize(nullptr), "copying a cache"); !copied)
    return tl::unexpected(copied.error());
  return copy;
}

Result<DeviceCache> DeviceCache::rebuilt(const Retention& retention, const SlotPlans& plans, std::int64_t now) {
  const auto before = heads();
  if (!before) return tl::unexpected(before.error());
  auto rebuilt = create(*device_, shape_, windows_, retention, plans);
  if (!rebuilt) return rebuilt;
  std::vector<std::int64_t> needed(plans.size());
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const HeadRule& rule = retention.rules[i];
    std::int64_t kept = (*before)[i].occupied;
    if (rule.mode == RetentionMode::score && now >= 0) kept = std::min(kept, rule.budget);
    // Of a ring it is not known how far on its tokens lie. At a prompt's end it is the same ring as before.
    const std::int64_t of_ring = now < 0 ? used_[i] : std::min(plans[i].most, now + 1);
    rebuilt->used_[i] = plans[i].kind == SlotPlan::Kind::ring ? of_ring : kept;
    needed[i] = rebuilt->used_[i];
    if (kept > plans[i].most)
      return fail(ErrorKind::bad_input, fmt::format("{} tokens do not fit into {} slots", kept, plans[i].most));
  }
  if (auto grown = rebuilt->grow(needed); !grown) return tl::unexpected(grown.error());
  cudaError_t code = now < 0 ? cudaSuccess
                             : evict_excess(view(), pointer<DeviceHead>(rebuilt->heads_), head_count(), shape_.head_dim,
                                            is_f16(), now, device_->stream());
  if (code == cudaSuccess && rebuilt->table_.bytes() > 0) {
    code = rebuild({view(), rebuilt->view(), head_count(), shape_.head_dim, is_f16()}, device_->stream());
  }
  if (code == cudaSuccess) code = cudaStreamSynchronize(device_->stream());
  if (auto moved = checked(code, "moving a cache"); !moved) return tl::unexpected(moved.error());
  if (mean_values_.bytes() > 0 && rebuilt->mean_values_.bytes() > 0)
    device_->memory().copy(rebuilt->mean_values_.data(), mean_values_.data(), mean_values_.bytes());
  if (auto copied = checked(cudaStreamSynchronize(nullptr), "moving a cache"); !copied)
    return tl::unexpected(copied.error());
  return rebuilt;
}

std::vector<RetainedToken> DeviceCache::snapshot(int head) const {
  const auto index = static_cast<std::size_t>(head);
  std::vector<RetainedToken> tokens;
  const auto states = heads();
  if (!states) return tokens;
  const auto used = static_cast<std::size_t>((*states)[index].used);
  const CacheShape& s = shape_;
  const std::size_t elements = 2 * static_cast<std::size_t>(round_up(s.head_dim, kTile)) * (is_f16() ? 2 : 4);
  for (std::size_t c = 0; c * kChunk < used; ++c) {
    const auto slots = static_cast<std::size_t>(slots_of_chunk(plans_[index].most, static_cast<int>(c)));
    std::vector<std::byte> chunk(slots * slot_bytes(s));
    if (cudaMemcpy(chunk.data(), chunks_[index][c], chunk.size(), cudaMemcpyDeviceToHost) != cudaSuccess) return {};
    const auto* scores = reinterpret_cast<const float*>(chunk.data() + slots * elements);
    const auto* positions =
        reinterpret_cast<const std::int32_t*>(scores + slots * static_cast<std::size_t>(1 + s.numbers));
    for (std::size_t i = 0; i < std::min(slots, used - c * kChunk); ++i) {
      if (positions[i] >= 0) tokens.push_back({positions[i], scores[i]});
    }
  }
  std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.position < b.position; });
  return tokens;
}

Status DeviceCache::collect_log(std::span<std::vector<Eviction>> collected) {
  if (log_capacity_ == 0) return {};
  auto states = heads();
  if (!states) return tl::unexpected(states.error());
  for (std::size_t i = 0; i < states->size(); ++i) {
    const auto count = static_cast<std::size_t>((*states)[i].logged);
    if (count == 0) continue;
    const std::size_t before = collected[i].size();
    collected[i].resize(before + count);
    const Eviction* const log = pointer<Eviction>(log_) + i * static_cast<std::size_t>(log_capacity_);
    if (auto copied =
            checked(cudaMemcpy(collected[i].data() + before, log, count * sizeof(Eviction), cudaMemcpyDeviceToHost),
                    "reading what was evicted");
        !copied) {
      collected[i].resize(before);
      return copied;
    }
    int* const logged = &pointer<DeviceHead>(heads_)[i].logged;
    if (auto reset = checked(cudaMemset(logged, 0, sizeof(int)), "reading what was evicted"); !reset) return reset;
  }
  return {};
}

Status DeviceCache::keep_log(std::int64_t entries, std::span<std::vector<Eviction>> collected) {
  if (auto read = collect_log(collected); !read) return read;
  std::int64_t most = 0;
  for (const std::int64_t used : used_) most = std::max(most, used + entries);
  most = round_up(most, kChunk);  // not anew with every token
  if (most <= log_capacity_) return {};
  const std::size_t bytes = static_cast<std::size_t>(most) * used_.size() * sizeof(Eviction);
  if (auto room = reserve(log_, device_->memory(), bytes); !room) return room;
  log_capacity_ = static_cast<int>(most);
  return {};
}

}  // namespace a2sf::cuda
