// The slot cache of one sequence: per layer and KV head, memory for just the slots that its budget asks for and its
// tokens have filled.
#pragma once

#include <a2sf/session.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/memory.h"

namespace a2sf {

inline constexpr int kTile = 16;  // slots whose keys are interleaved, so that one vector holds one dimension of 16 keys
inline constexpr int kChunk = 256;  // slots of one chunk: the unit in which a cache grows and attention is split

// A key or value beyond this is stored as this: an infinity would reach rows that give its token probability 0.
inline constexpr float kMostF16 = 65504;

inline constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Up to kChunk slots of one KV head, a multiple of kTile. A view; the cache owns the memory.
struct Chunk {
  std::byte* keys;          // [slots / 16][dim][16]
  std::byte* values;        // [slots][dim]
  float* scores;            // [slots]: A of the recurrence
  float* numbers;           // [CacheShape::numbers][slots]: constants of a token, a hook's own
  std::int32_t* positions;  // [slots]: negative where the slot is free
  int slots;
};

// How many slots a head may have, and which of them a token gets. Memory comes in chunks, as tokens do, so that a
// budget larger than its sequence costs no more than the sequence.
struct SlotPlan {
  // ring: a token's slot is its position modulo `most`. Tokens leave in order, each before its slot is due again: where
  // a token lies says nothing about when others left.
  enum class Kind { unbounded, bounded, ring };
  Kind kind = Kind::unbounded;
  std::int64_t most = std::numeric_limits<std::int64_t>::max();

  static SlotPlan bounded(std::int64_t most) { return {Kind::bounded, most}; }
  static SlotPlan ring(std::int64_t most) { return {Kind::ring, most}; }
  SlotPlan within(std::int64_t tokens) const;  // of a sequence that never has more
  // The slots that exist once `needed` have been: whole chunks up to the last one, which ends with the tile of the last
  // slot.
  std::int64_t room_for(std::int64_t needed) const;
};
using SlotPlans = std::vector<SlotPlan>;  // [layer][kv head]

// One KV head of one layer. used() is the high-water mark: the slots that have ever held a token. The free ones among
// them are chained through their positions, the latest first, so that taking and giving back a slot needs no memory.
class HeadCache {
 public:
  int used() const { return used_; }
  int occupied() const { return used_ - free_; }
  std::int64_t room() const { return room_; }  // slots that exist
  bool is_full() const { return occupied() >= std::min(plan_.most, room_); }
  bool is_ring() const { return plan_.kind == SlotPlan::Kind::ring; }
  // The most slots that are used once there are `tokens` more.
  std::int64_t most_used(std::int64_t tokens) const { return std::min(plan_.most, used_ + tokens); }
  int dim() const { return dim_; }  // of a key and a value, padded to a multiple of kTile with zeros
  KvType type() const { return type_; }
  int numbers() const { return numbers_; }  // beside each token

  std::span<const Chunk> chunks() const { return chunks_; }
  const Chunk& chunk_of(int slot) const { return chunks_[static_cast<std::size_t>(slot / kChunk)]; }
  float& score(int slot) { return chunk_of(slot).scores[slot % kChunk]; }
  float score(int slot) const { return chunk_of(slot).scores[slot % kChunk]; }
  std::int32_t position(int slot) const { return chunk_of(slot).positions[slot % kChunk]; }  // negative: it is free
  float& number(int slot, int index) { return chunk_of(slot).numbers[index * chunk_of(slot).slots + slot % kChunk]; }
  float number(int slot, int index) const {
    return chunk_of(slot).numbers[index * chunk_of(slot).slots + slot % kChunk];
  }
  std::vector<int> slots_by_position() const;  // the occupied ones

  // Gives a token a free slot (its own in a ring), with score and numbers 0; its key and value are still to be written.
  // The head must not be full.
  int claim(std::int32_t position);
  // Sets the slot's kValueWeight: the distance of its token's value, float [dim of the model's head], to the mean of
  // all values that this head has seen, this one included.
  void weigh(int slot, std::span<const float> value);
  // claim() with key and value, float [dim of the model's head]. Finite values stay finite in f16.
  int insert(std::int32_t position, std::span<const float> key, std::span<const float> value);
  void release(int slot);  // the slot's token is gone; its bytes stay until they are overwritten
  // claim() of a copy of another head's token, of the same shape and type: score and numbers too.
  int insert_copy(const HeadCache& from, int slot);
  // Two tokens of heads of one shape and type change places, with all that is known of them.
  void swap(int slot, HeadCache& other, int slot_of_other);
  void read_key(int slot, std::span<float> key) const;
  void read_value(int slot, std::span<float> value) const;
  void write_key(int slot, std::span<const float> key);
  void write_value(int slot, std::span<const float> value);

 private:
  friend class SequenceCache;
  // Calls part(own, other) with each element of the keys and values that a token has here and there.
  template <class Part>
  void for_each_part(int slot, const HeadCache& other, int slot_of_other, Part part) const;
  int take_slot(std::int32_t position);
  // The slots that must exist for `tokens` more.
  std::int64_t needed(std::int64_t tokens) const;
  void reserve_chunks(std::int64_t slots);  // add() allocates nothing until there are so many
  void add(const Chunk& chunk);             // of free slots

  SlotPlan plan_;
  std::vector<Chunk> chunks_;
  std::int64_t room_ = 0;
  int used_ = 0;
  int free_ = 0;        // of the used slots
  int next_free_ = -1;  // the slot that is given out next, -1: none was given back
  int dim_ = 0;
  int numbers_ = 0;
  KvType type_ = KvType::f16;
  float* mean_value_ = nullptr;   // [dim of the model's head], where values are weighed
  std::int64_t values_seen_ = 0;  // in that mean
};

struct CacheShape {
  int layers, kv_heads, head_dim;
  KvType type;
  int numbers = 0;             // floats beside each token
  bool weighs_values = false;  // the first of them is its value's weight
};

// The number of a slot that HeadCache::weigh() sets.
inline constexpr int kValueWeight = 0;
inline constexpr double kMostWeight = 1e30;  // so that a score times it stays finite

// Of one slot: key, value, score, position and numbers.
std::size_t slot_bytes(const CacheShape& shape);
// What a cache takes beside its slots, once it has any.
std::size_t fixed_bytes(const CacheShape& shape);

// Not thread safe across calls; different heads may be used by different threads at once. Whatever makes a vector may
// throw std::bad_alloc, and leaves everything as it was.
class SequenceCache {
 public:
  SequenceCache() = default;
  // Takes no memory yet.
  SequenceCache(Memory& memory, const CacheShape& shape, const SlotPlans& plans);

  HeadCache& head(int layer, int kv_head) { return heads_[index(layer, kv_head)]; }
  const HeadCache& head(int layer, int kv_head) const { return heads_[index(layer, kv_head)]; }
  const CacheShape& shape() const { return shape_; }

  // Makes room for `tokens` more in every head. Called before a step: nothing allocates inside one.
  Status make_room(std::int64_t tokens);
  Status make_room(std::span<const std::int64_t> tokens);  // [layer][kv head]
  // The same bytes in the same slots, in memory of its own.
  Result<SequenceCache> clone() const;
  // The retained tokens, in order of position, in a cache of other plans; without those in the slots of `left_out`
  // ([layer][kv head], or empty). Fails if a head does not fit.
  Result<SequenceCache> rebuilt(const SlotPlans& plans, std::span<const std::vector<int>> left_out = {}) const;

  std::size_t bytes() const;
  // The most slots that a head uses once it holds `tokens` more.
  std::int64_t most_used(std::int64_t tokens) const;
  std::int64_t most_room() const;  // the most slots that a head has

 private:
  std::size_t index(int layer, int kv_head) const {
    return static_cast<std::size_t>(layer * shape_.kv_heads + kv_head);
  }
  std::size_t chunk_bytes(int slots) const { return static_cast<std::size_t>(slots) * slot_bytes(shape_); }
  template <class TokensOf>
  Status make_room_for(TokensOf tokens_of);           // tokens_of(head)
  Status grow(std::span<const std::int64_t> needed);  // until every head has room for so many slots
  Status take_fixed_memory();
  void copy_mean_values(const SequenceCache& from);
  Chunk carve(std::byte* data, int slots) const;

  Memory* memory_ = nullptr;
  CacheShape shape_{};
  std::vector<HeadCache> heads_;
  std::vector<OwnedBuffer> buffers_;
  OwnedBuffer mean_values_;  // [layer][kv head][dim of the model's head]
};

}  // namespace a2sf
