// The slot cache of one sequence: per layer and KV head, memory for just the slots its budget asks for.
#pragma once

#include <a2sf/session.h>

#include <cstdint>
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
  std::int32_t* positions;  // [slots]: negative where the slot is free
  int slots;
};

// One KV head of one layer. `used` slots have ever held a token; the free ones among them are chained through their
// positions, the latest first, so that taking and giving back a slot needs no memory.
struct HeadCache {
  std::vector<Chunk> chunks;
  int used = 0;
  int dim = 0;  // of a key and a value, padded to a multiple of kTile with zeros
  KvType type = KvType::f16;
  // Slots that may be occupied while a row is attended to; 0: as many as have been made room for.
  std::int64_t limit = 0;
  bool ring = false;  // a token's slot is its position modulo the limit

  int occupied() const { return used - free_; }
  std::int64_t room() const { return room_; }  // slots that exist
  bool is_full() const { return occupied() == (limit != 0 ? limit : room_); }
  Chunk& chunk_of(int slot) { return chunks[static_cast<std::size_t>(slot / kChunk)]; }
  const Chunk& chunk_of(int slot) const { return chunks[static_cast<std::size_t>(slot / kChunk)]; }
  float& score(int slot) { return chunk_of(slot).scores[slot % kChunk]; }
  float score(int slot) const { return chunk_of(slot).scores[slot % kChunk]; }
  std::int32_t position(int slot) const { return chunk_of(slot).positions[slot % kChunk]; }
  std::vector<int> slots_by_position() const;  // the occupied ones

  void reserve(std::int64_t slots);  // so that chunks for so many slots can be added without an allocation
  void add(const Chunk& chunk);      // of free slots
  // Gives a token a free slot (its own in a ring), with score 0; its key and value are still to be written. The head
  // must not be full.
  int claim(std::int32_t position);
  // claim() with key and value, float [dim of the model's head]. Finite values stay finite in f16.
  int insert(std::int32_t position, std::span<const float> key, std::span<const float> value);
  void release(int slot);  // the slot's token is gone; its bytes stay until they are overwritten
  void read_key(int slot, std::span<float> key) const;
  void read_value(int slot, std::span<float> value) const;

  // As many used and free slots, in the same order of reuse; the chunks are copied by the caller.
  void copy_slots_from(const HeadCache& other);

 private:
  int take_slot(std::int32_t position);

  std::int64_t room_ = 0;
  int free_ = 0;        // of the used slots
  int next_free_ = -1;  // the slot that is given out next, -1: none was given back
};

// How many slots a head gets; 0: it grows in whole chunks. In a ring, tokens leave in order, each before its slot is
// due again: where a token lies says nothing about when others left.
struct SlotCount {
  std::int64_t slots;
  bool ring;

  SlotCount(std::int64_t count, bool as_ring = false) : slots(count), ring(as_ring) {}  // a count is one
};
using SlotCounts = std::vector<SlotCount>;  // [layer][kv head]

struct CacheShape {
  int layers, kv_heads, head_dim;
  KvType type;
};

// Of one slot: key, value, score and position.
std::size_t slot_bytes(const CacheShape& shape);

// Not thread safe across calls; different heads may be used by different threads at once.
class SequenceCache {
 public:
  // Bounded heads share one arena.
  static Result<SequenceCache> create(Memory& memory, const CacheShape& shape, SlotCounts counts);

  HeadCache& head(int layer, int kv_head) { return heads_[index(layer, kv_head)]; }
  const HeadCache& head(int layer, int kv_head) const { return heads_[index(layer, kv_head)]; }
  const CacheShape& shape() const { return shape_; }

  // Makes room for `tokens` more in every head that grows. Called before a step: nothing allocates inside one.
  Status make_room(std::int64_t tokens);
  // The same bytes in the same slots, in memory of its own.
  Result<SequenceCache> clone() const;
  // The retained tokens, in order of position, in a cache of other sizes; without those in the slots of `left_out`
  // ([layer][kv head], or empty). Fails if a head does not fit.
  Result<SequenceCache> rebuilt(SlotCounts counts, std::span<const std::vector<int>> left_out = {}) const;

  std::size_t bytes() const;
  // The most slots that a head will use once it holds `tokens` more.
  std::int64_t most_used(std::int64_t tokens) const;

 private:
  std::size_t index(int layer, int kv_head) const {
    return static_cast<std::size_t>(layer * shape_.kv_heads + kv_head);
  }
  std::size_t chunk_bytes(int slots) const { return static_cast<std::size_t>(slots) * slot_bytes(shape_); }
  Status grow(std::span<const std::int64_t> slots);  // until every head has that many
  Chunk carve(std::byte* data, int slots) const;

  Memory* memory_ = nullptr;
  CacheShape shape_{};
  SlotCounts counts_;
  std::vector<HeadCache> heads_;
  OwnedBuffer arena_;
  std::vector<OwnedBuffer> grown_;
};

}  // namespace a2sf
