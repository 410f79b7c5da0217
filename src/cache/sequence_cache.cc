#include "cache/sequence_cache.h"

#include <fmt/format.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/reserve.h"

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

SlotPlan SlotPlan::within(std::int64_t tokens) const {
  return {kind == Kind::unbounded ? Kind::bounded : kind, std::min(most, tokens)};
}

std::int64_t SlotPlan::room_for(std::int64_t needed) const {
  const std::int64_t chunks = round_up(std::min(needed, most), kChunk);
  // What is left for a shorter last chunk comes along.
  return chunks > 0 && most - chunks < kChunk ? round_up(most, kTile) : chunks;
}

std::int64_t HeadCache::needed(std::int64_t tokens) const {
  return is_ring() ? most_used(tokens) : std::max<std::int64_t>(used_, std::min(plan_.most, occupied() + tokens));
}

void HeadCache::reserve_chunks(std::int64_t slots) {
  reserve_amortised(chunks_, static_cast<std::size_t>((slots + kChunk - 1) / kChunk));
}

void HeadCache::add(const Chunk& chunk) {
  chunks_.push_back(chunk);
  room_ += chunk.slots;
}

// A slot that was given back holds the one given back before it, as -2 - slot; -1: it was the first.
int HeadCache::take_slot(std::int32_t position) {
  if (is_ring()) {  // nothing is chained: a token's slot is known
    const int slot = static_cast<int>(position % plan_.most);
    free_ += std::max(0, slot + 1 - used_) - 1;
    used_ = std::max(used_, slot + 1);
    return slot;
  }
  if (next_free_ < 0) return used_++;
  const int slot = next_free_;
  next_free_ = -2 - this->position(slot);
  --free_;
  return slot;
}

int HeadCache::claim(std::int32_t position) {
  const int slot = take_slot(position);
  chunk_of(slot).scores[slot % kChunk] = 0;
  chunk_of(slot).positions[slot % kChunk] = position;
  for (int i = 0; i < numbers_; ++i) number(slot, i) = 0;
  return slot;
}

void HeadCache::weigh(int slot, std::span<const float> value) {
  const auto seen = static_cast<double>(++values_seen_);
  double squares = 0;
  for (std::size_t i = 0; i < value.size(); ++i) {
    const double mean = mean_value_[i] + (static_cast<double>(value[i]) - mean_value_[i]) / seen;
    const double distance = value[i] - mean;
    squares += distance * distance;
    mean_value_[i] = static_cast<float>(mean);
  }
  // Finite, whatever the values: what is compared is a score times this.
  number(slot, kValueWeight) = static_cast<float>(std::min(std::sqrt(squares), kMostWeight));
}

int HeadCache::insert(std::int32_t position, std::span<const float> key, std::span<const float> value) {
  const int slot = claim(position);
  write_key(slot, key);
  write_value(slot, value);
  return slot;
}

namespace {

// Calls part(own, other) with each element of two tokens' keys and values.
template <class Element, class Part>
void for_each_element(const Chunk& own, int slot, const Chunk& other, int slot_of_other, int dim, Part part) {
  auto* const key = reinterpret_cast<Element*>(own.keys) + key_index(slot, dim, 0);
  auto* const other_key = reinterpret_cast<Element*>(other.keys) + key_index(slot_of_other, dim, 0);
  for (int i = 0; i < dim; ++i) part(key[i * kTile], other_key[i * kTile]);
  auto* const value = reinterpret_cast<Element*>(own.values) + value_index(slot, dim, 0);
  auto* const other_value = reinterpret_cast<Element*>(other.values) + value_index(slot_of_other, dim, 0);
  for (int i = 0; i < dim; ++i) part(value[i], other_value[i]);
}

}  // namespace

template <class Part>
void HeadCache::for_each_part(int slot, const HeadCache& other, int slot_of_other, Part part) const {
  const Chunk &own = chunk_of(slot), &others = other.chunk_of(slot_of_other);
  if (type_ == KvType::f16) {
    for_each_element<ggml_fp16_t>(own, slot, others, slot_of_other, dim_, part);
  } else {
    for_each_element<float>(own, slot, others, slot_of_other, dim_, part);
  }
}

int HeadCache::insert_copy(const HeadCache& from, int slot) {
  const int own = claim(from.position(slot));
  for_each_part(own, from, slot, [](auto& to, const auto& element) { to = element; });
  score(own) = from.score(slot);
  for (int i = 0; i < numbers_; ++i) number(own, i) = from.number(slot, i);
  return own;
}

void HeadCache::swap(int slot, HeadCache& other, int slot_of_other) {
  for_each_part(slot, other, slot_of_other, [](auto& a, auto& b) { std::swap(a, b); });
  std::swap(chunk_of(slot).positions[slot % kChunk], other.chunk_of(slot_of_other).positions[slot_of_other % kChunk]);
  std::swap(score(slot), other.score(slot_of_other));
  for (int i = 0; i < numbers_; ++i) std::swap(number(slot, i), other.number(slot_of_other, i));
}

void HeadCache::write_key(int slot, std::span<const float> key) {
  for (std::size_t i = 0; i < key.size(); ++i) store(chunk_of(slot).keys, key_index(slot, dim_, i), type_, key[i]);
}

void HeadCache::write_value(int slot, std::span<const float> value) {
  for (std::size_t i = 0; i < value.size(); ++i)
    store(chunk_of(slot).values, value_index(slot, dim_, i), type_, value[i]);
}

void HeadCache::release(int slot) {
  chunk_of(slot).positions[slot % kChunk] = is_ring() ? -1 : -2 - next_free_;
  next_free_ = is_ring() ? -1 : slot;
  ++free_;
}

std::vector<int> HeadCache::slots_by_position() const {
  std::vector<int> slots;
  for (int slot = 0; slot < used_; ++slot) {
    if (position(slot) >= 0) slots.push_back(slot);
  }
  std::sort(slots.begin(), slots.end(), [this](int a, int b) { return position(a) < position(b); });
  return slots;
}

void HeadCache::read_key(int slot, std::span<float> key) const {
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = load(chunk_of(slot).keys, key_index(slot, dim_, i), type_);
}

void HeadCache::read_value(int slot, std::span<float> value) const {
  for (std::size_t i = 0; i < value.size(); ++i) {
    value[i] = load(chunk_of(slot).values, value_index(slot, dim_, i), type_);
  }
}

std::size_t slot_bytes(const CacheShape& shape) {
  const auto dim = static_cast<std::size_t>(round_up(shape.head_dim, kTile));
  return 2 * dim * element_bytes(shape.type) + sizeof(std::int32_t) +
         sizeof(float) * (1 + static_cast<std::size_t>(shape.numbers));
}

std::size_t fixed_bytes(const CacheShape& shape) {
  if (!shape.weighs_values) return 0;
  return sizeof(float) * static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(shape.kv_heads) *
         static_cast<std::size_t>(shape.head_dim);
}

Chunk SequenceCache::carve(std::byte* data, int slots) const {
  const auto count = static_cast<std::size_t>(slots);
  const std::size_t part =
      count * static_cast<std::size_t>(round_up(shape_.head_dim, kTile)) * element_bytes(shape_.type);
  auto* const scores = reinterpret_cast<float*>(data + 2 * part);
  float* const numbers = scores + count;
  auto* const positions = reinterpret_cast<std::int32_t*>(numbers + count * static_cast<std::size_t>(shape_.numbers));
  Chunk chunk{data, data + part, scores, numbers, positions, slots};
  std::fill_n(chunk.positions, slots, -1);
  return chunk;
}

SequenceCache::SequenceCache(Memory& memory, const CacheShape& shape, const SlotPlans& plans)
    : memory_(&memory), shape_(shape), heads_(plans.size()) {
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    heads_[i].plan_ = plans[i];
    heads_[i].dim_ = static_cast<int>(round_up(shape.head_dim, kTile));
    heads_[i].numbers_ = shape.numbers;
    heads_[i].type_ = shape.type;
  }
}

Status SequenceCache::take_fixed_memory() {
  const std::size_t bytes = fixed_bytes(shape_);
  if (bytes == 0 || mean_values_.bytes() > 0) return {};
  auto buffer = OwnedBuffer::create(*memory_, bytes);
  if (!buffer) return tl::unexpected(buffer.error());
  mean_values_ = std::move(*buffer);
  auto* mean = reinterpret_cast<float*>(mean_values_.data());
  for (HeadCache& head : heads_) {
    head.mean_value_ = mean;
    mean += shape_.head_dim;
  }
  return {};
}

// What all heads want at once is one piece of memory: large enough for huge pages, and a layer's heads lie side by
// side.
Status SequenceCache::grow(std::span<const std::int64_t> needed) {
  std::int64_t slots = 0;
  for (std::size_t i = 0; i < heads_.size(); ++i)
    slots += std::max<std::int64_t>(0, heads_[i].plan_.room_for(needed[i]) - heads_[i].room());
  if (slots == 0) return {};
  if (auto taken = take_fixed_memory(); !taken) return taken;
  auto buffer = OwnedBuffer::create(*memory_, static_cast<std::size_t>(slots) * slot_bytes(shape_));
  if (!buffer) {
    return fail(ErrorKind::out_of_memory, fmt::format("{}: the cache holds {} MiB already; a smaller budget bounds it",
                                                      buffer.error().message, bytes() >> 20));
  }
  // All that may throw comes before the first chunk: none must outlive its memory.
  buffers_.reserve(buffers_.size() + 1);
  for (std::size_t i = 0; i < heads_.size(); ++i) heads_[i].reserve_chunks(heads_[i].plan_.room_for(needed[i]));
  std::byte* next = buffer->data();
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    const std::int64_t room = heads_[i].plan_.room_for(needed[i]);
    while (heads_[i].room() < room) {
      const auto count = static_cast<int>(std::min<std::int64_t>(kChunk, room - heads_[i].room()));
      heads_[i].add(carve(next, count));
      next += chunk_bytes(count);
    }
  }
  buffers_.push_back(std::move(*buffer));
  return {};
}

Status SequenceCache::make_room(std::int64_t tokens) {
  return make_room_for([tokens](std::size_t) { return tokens; });
}

Status SequenceCache::make_room(std::span<const std::int64_t> tokens) {
  return make_room_for([tokens](std::size_t i) { return tokens[i]; });
}

template <class TokensOf>
Status SequenceCache::make_room_for(TokensOf tokens_of) {
  std::size_t full = 0;
  while (full < heads_.size() && heads_[full].room() >= heads_[full].needed(tokens_of(full))) ++full;
  if (full == heads_.size()) return {};
  std::vector<std::int64_t> needed;
  for (std::size_t i = 0; i < heads_.size(); ++i) needed.push_back(heads_[i].needed(tokens_of(i)));
  return grow(needed);
}

Result<SequenceCache> SequenceCache::clone() const {
  SequenceCache copy;
  copy.memory_ = memory_;
  copy.shape_ = shape_;
  copy.heads_ = heads_;
  std::vector<std::int64_t> needed;
  for (HeadCache& head : copy.heads_) {
    needed.push_back(head.room_);
    head.chunks_.clear();
    head.room_ = 0;
    head.mean_value_ = nullptr;
  }
  if (auto grown = copy.grow(needed); !grown) return tl::unexpected(grown.error());
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    const auto from = heads_[i].chunks(), to = copy.heads_[i].chunks();
    for (std::size_t c = 0; c < from.size(); ++c) memory_->copy(to[c].keys, from[c].keys, chunk_bytes(from[c].slots));
  }
  copy.copy_mean_values(*this);
  return copy;
}

void SequenceCache::copy_mean_values(const SequenceCache& from) {
  if (mean_values_.bytes() == 0) return;
  memory_->copy(mean_values_.data(), from.mean_values_.data(), mean_values_.bytes());
  for (std::size_t i = 0; i < heads_.size(); ++i) heads_[i].values_seen_ = from.heads_[i].values_seen_;
}

Result<SequenceCache> SequenceCache::rebuilt(const SlotPlans& plans, std::span<const std::vector<int>> left_out) const {
  SequenceCache copy(*memory_, shape_, plans);
  std::vector<std::vector<int>> kept(heads_.size());
  std::vector<std::int64_t> needed(heads_.size(), 0);
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    kept[i] = heads_[i].slots_by_position();
    if (!left_out.empty()) {
      std::vector<char> goes(static_cast<std::size_t>(heads_[i].used()), 0);
      for (const int slot : left_out[i]) goes[static_cast<std::size_t>(slot)] = 1;
      std::erase_if(kept[i], [&](int slot) { return goes[static_cast<std::size_t>(slot)] != 0; });
    }
    const auto tokens = static_cast<std::int64_t>(kept[i].size());
    if (tokens > plans[i].most)
      return fail(ErrorKind::bad_input, fmt::format("{} tokens do not fit into {} slots", tokens, plans[i].most));
    needed[i] = tokens;
    for (const int slot : kept[i]) {  // in a ring they may lie further on
      if (copy.heads_[i].is_ring()) needed[i] = std::max(needed[i], heads_[i].position(slot) % plans[i].most + 1);
    }
  }
  if (auto grown = copy.grow(needed); !grown) return tl::unexpected(grown.error());
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    for (const int slot : kept[i]) copy.heads_[i].insert_copy(heads_[i], slot);
  }
  copy.copy_mean_values(*this);
  return copy;
}

std::int64_t SequenceCache::most_used(std::int64_t tokens) const {
  std::int64_t most = 0;
  for (const HeadCache& head : heads_) most = std::max(most, head.most_used(tokens));
  return most;
}

std::int64_t SequenceCache::most_room() const {
  std::int64_t most = 0;
  for (const HeadCache& head : heads_) most = std::max(most, head.room());
  return most;
}

std::size_t SequenceCache::bytes() const {
  return std::accumulate(buffers_.begin(), buffers_.end(), mean_values_.bytes(),
                         [](std::size_t sum, const OwnedBuffer& buffer) { return sum + buffer.bytes(); });
}

}  // namespace a2sf
