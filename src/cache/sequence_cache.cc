#include "cache/sequence_cache.h"

#include <fmt/format.h>
#include <ggml.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace a2sf {
namespace {

std::size_t element_bytes(KvType type) { return type == KvType::f16 ? 2 : 4; }

void store(std::byte* data, std::size_t index, KvType type, float value) {
  if (type == KvType::f16) {
    const ggml_fp16_t half = ggml_fp32_to_fp16(std::clamp(value, -kMostF16, kMostF16));
    std::memcpy(data + 2 * index, &half, 2);
  } else {
    std::memcpy(data + 4 * index, &value, 4);
  }
}

float load(const std::byte* data, std::size_t index, KvType type) {
  if (type == KvType::f16) {
    ggml_fp16_t half;
    std::memcpy(&half, data + 2 * index, 2);
    return ggml_fp16_to_fp32(half);
  }
  float value;
  std::memcpy(&value, data + 4 * index, 4);
  return value;
}

std::size_t key_index(int slot, int dim, std::size_t i) {
  const auto local = static_cast<std::size_t>(slot % kChunk);
  return (local / kTile * static_cast<std::size_t>(dim) + i) * kTile + local % kTile;
}

std::size_t value_index(int slot, int dim, std::size_t i) {
  return static_cast<std::size_t>(slot % kChunk) * static_cast<std::size_t>(dim) + i;
}

}  // namespace

void HeadCache::reserve(std::int64_t slots) {
  const auto wanted = static_cast<std::size_t>((slots + kChunk - 1) / kChunk);
  if (chunks.capacity() < wanted) chunks.reserve(std::max(wanted, 2 * chunks.capacity()));
}

void HeadCache::add(const Chunk& chunk) {
  chunks.push_back(chunk);
  room_ += chunk.slots;
}

// A slot that was given back holds the one given back before it, as -2 - slot; -1: it was the first.
int HeadCache::take_slot(std::int32_t position) {
  if (ring) {  // nothing is chained: a token's slot is known
    const int slot = static_cast<int>(position % limit);
    free_ += std::max(0, slot + 1 - used) - 1;
    used = std::max(used, slot + 1);
    return slot;
  }
  if (next_free_ < 0) return used++;
  const int slot = next_free_;
  next_free_ = -2 - this->position(slot);
  --free_;
  return slot;
}

void HeadCache::copy_slots_from(const HeadCache& other) {
  used = other.used;
  free_ = other.free_;
  next_free_ = other.next_free_;
}

int HeadCache::claim(std::int32_t position) {
  const int slot = take_slot(position);
  chunk_of(slot).scores[slot % kChunk] = 0;
  chunk_of(slot).positions[slot % kChunk] = position;
  return slot;
}

int HeadCache::insert(std::int32_t position, std::span<const float> key, std::span<const float> value) {
  const int slot = claim(position);
  const Chunk& chunk = chunk_of(slot);
  for (std::size_t i = 0; i < key.size(); ++i) store(chunk.keys, key_index(slot, dim, i), type, key[i]);
  for (std::size_t i = 0; i < value.size(); ++i) store(chunk.values, value_index(slot, dim, i), type, value[i]);
  return slot;
}

void HeadCache::release(int slot) {
  chunk_of(slot).positions[slot % kChunk] = ring ? -1 : -2 - next_free_;
  next_free_ = ring ? -1 : slot;
  ++free_;
}

std::vector<int> HeadCache::slots_by_position() const {
  std::vector<int> slots;
  for (int slot = 0; slot < used; ++slot) {
    if (position(slot) >= 0) slots.push_back(slot);
  }
  std::sort(slots.begin(), slots.end(), [this](int a, int b) { return position(a) < position(b); });
  return slots;
}

void HeadCache::read_key(int slot, std::span<float> key) const {
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = load(chunk_of(slot).keys, key_index(slot, dim, i), type);
}

void HeadCache::read_value(int slot, std::span<float> value) const {
  for (std::size_t i = 0; i < value.size(); ++i) {
    value[i] = load(chunk_of(slot).values, value_index(slot, dim, i), type);
  }
}

std::size_t slot_bytes(const CacheShape& shape) {
  const auto dim = static_cast<std::size_t>(round_up(shape.head_dim, kTile));
  return 2 * dim * element_bytes(shape.type) + sizeof(float) + sizeof(std::int32_t);
}

Chunk SequenceCache::carve(std::byte* data, int slots) const {
  const auto count = static_cast<std::size_t>(slots);
  const std::size_t part =
      count * static_cast<std::size_t>(round_up(shape_.head_dim, kTile)) * element_bytes(shape_.type);
  std::byte* const scores = data + 2 * part;
  Chunk chunk{data, data + part, reinterpret_cast<float*>(scores),
              reinterpret_cast<std::int32_t*>(scores + count * sizeof(float)), slots};
  std::fill_n(chunk.positions, slots, -1);
  return chunk;
}

Result<SequenceCache> SequenceCache::create(Memory& memory, const CacheShape& shape, SlotCounts counts) {
  SequenceCache cache;
  cache.memory_ = &memory;
  cache.shape_ = shape;
  cache.counts_ = std::move(counts);
  cache.heads_.resize(cache.counts_.size());
  double wanted = 0;  // in double first: a hostile budget must not wrap around
  for (const SlotCount& count : cache.counts_) {
    wanted += static_cast<double>(count.slots + kTile) * static_cast<double>(slot_bytes(shape));
  }
  if (wanted > 1e15) {
    return fail(ErrorKind::out_of_memory,
                fmt::format("the cache would need {:.0f} GiB; choose a smaller budget", wanted / (1 << 30)));
  }
  std::size_t bytes = 0;
  for (const SlotCount& count : cache.counts_) {
    bytes += slot_bytes(shape) * static_cast<std::size_t>(round_up(count.slots, kTile));
  }
  auto arena = OwnedBuffer::create(memory, bytes);
  if (!arena) return fail(ErrorKind::out_of_memory, arena.error().message + " for the cache; choose a smaller budget");
  cache.arena_ = std::move(*arena);
  std::byte* next = cache.arena_.data();
  for (std::size_t i = 0; i < cache.heads_.size(); ++i) {
    HeadCache& head = cache.heads_[i];
    head.dim = static_cast<int>(round_up(shape.head_dim, kTile));
    head.type = shape.type;
    head.limit = cache.counts_[i].slots;
    head.ring = cache.counts_[i].ring;
    for (std::int64_t left = round_up(head.limit, kTile); left > 0; left -= kChunk) {
      const int slots = static_cast<int>(std::min<std::int64_t>(left, kChunk));
      head.add(cache.carve(next, slots));
      next += cache.chunk_bytes(slots);
    }
  }
  return cache;
}

// What all heads want at once is one piece of memory: large enough for huge pages, and a layer's heads lie side by
// side.
Status SequenceCache::grow(std::span<const std::int64_t> slots) {
  std::int64_t chunks = 0;
  for (std::size_t i = 0; i < heads_.size(); ++i)
    chunks += std::max<std::int64_t>(0, (slots[i] - heads_[i].room() + kChunk - 1) / kChunk);
  if (chunks == 0) return {};
  // First what may throw: a chunk must not outlive its memory.
  grown_.reserve(grown_.size() + 1);
  for (std::size_t i = 0; i < heads_.size(); ++i) heads_[i].reserve(slots[i]);
  auto buffer = OwnedBuffer::create(*memory_, static_cast<std::size_t>(chunks) * chunk_bytes(kChunk));
  if (!buffer) {
    return fail(ErrorKind::out_of_memory, fmt::format("{}: the cache holds {} MiB already; a budget bounds it",
                                                      buffer.error().message, bytes() >> 20));
  }
  std::byte* next = buffer->data();
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    for (; heads_[i].room() < slots[i]; next += chunk_bytes(kChunk)) heads_[i].add(carve(next, kChunk));
  }
  grown_.push_back(std::move(*buffer));
  return {};
}

Status SequenceCache::make_room(std::int64_t tokens) {
  const auto has_room = [&](const HeadCache& head) {
    return head.limit != 0 || head.room() >= head.occupied() + tokens;
  };
  if (std::all_of(heads_.begin(), heads_.end(), has_room)) return {};
  std::vector<std::int64_t> slots(heads_.size(), 0);
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    if (heads_[i].limit == 0) slots[i] = heads_[i].occupied() + tokens;
  }
  return grow(slots);
}

Result<SequenceCache> SequenceCache::clone() const {
  auto copy = create(*memory_, shape_, counts_);
  if (!copy) return copy;
  std::vector<std::int64_t> slots;
  for (const HeadCache& head : heads_) slots.push_back(head.room());
  if (auto grown = copy->grow(slots); !grown) return tl::unexpected(grown.error());
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    const HeadCache& from = heads_[i];
    HeadCache& to = copy->heads_[i];
    for (std::size_t c = 0; c < from.chunks.size(); ++c) {
      memory_->copy(to.chunks[c].keys, from.chunks[c].keys, chunk_bytes(from.chunks[c].slots));
    }
    to.copy_slots_from(from);
  }
  return copy;
}

Result<SequenceCache> SequenceCache::rebuilt(SlotCounts counts, std::span<const std::vector<int>> left_out) const {
  auto copy = create(*memory_, shape_, std::move(counts));
  if (!copy) return copy;
  std::vector<std::vector<int>> kept(heads_.size());
  std::vector<std::int64_t> wanted(heads_.size(), 0);
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    kept[i] = heads_[i].slots_by_position();
    if (!left_out.empty()) {
      std::vector<char> goes(static_cast<std::size_t>(heads_[i].used), 0);
      for (const int slot : left_out[i]) goes[static_cast<std::size_t>(slot)] = 1;
      std::erase_if(kept[i], [&](int slot) { return goes[static_cast<std::size_t>(slot)] != 0; });
    }
    const auto tokens = static_cast<std::int64_t>(kept[i].size()), limit = copy->heads_[i].limit;
    if (limit != 0 && tokens > limit)
      return fail(ErrorKind::bad_input, fmt::format("{} tokens do not fit into {} slots", tokens, limit));
    if (limit == 0) wanted[i] = tokens;
  }
  if (auto grown = copy->grow(wanted); !grown) return tl::unexpected(grown.error());
  std::vector<float> key(static_cast<std::size_t>(shape_.head_dim)), value(key.size());
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    const HeadCache& from = heads_[i];
    HeadCache& to = copy->heads_[i];
    for (const int slot : kept[i]) {
      from.read_key(slot, key);
      from.read_value(slot, value);
      to.score(to.insert(from.position(slot), key, value)) = from.score(slot);
    }
  }
  return copy;
}

std::int64_t SequenceCache::most_used(std::int64_t tokens) const {
  std::int64_t most = 0;
  for (const HeadCache& head : heads_) {
    const std::int64_t used = head.ring ? head.limit : head.used + tokens;
    most = std::max(most, std::min(used, head.room()));
  }
  return most;
}

std::size_t SequenceCache::bytes() const {
  return std::accumulate(grown_.begin(), grown_.end(), arena_.bytes(),
                         [](std::size_t sum, const OwnedBuffer& buffer) { return sum + buffer.bytes(); });
}

}  // namespace a2sf
