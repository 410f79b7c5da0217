// A small cache of one head and random rows to put through it.
#pragma once

#include <new>
#include <random>
#include <vector>

#include "cache/sequence_cache.h"
#include "policy/retention.h"

namespace a2sf::test {

// With room for `slots` tokens if it is bounded by so many (0: unbounded, and no room yet).
inline SequenceCache one_head_cache(int dim, KvType type, std::int64_t slots) {
  SequenceCache cache(host_memory(), {1, 1, dim, type}, {slots == 0 ? SlotPlan() : SlotPlan::bounded(slots)});
  if (!cache.make_room(slots)) throw std::bad_alloc();
  return cache;
}

inline std::vector<float> random_vector(std::mt19937& random, std::size_t size, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> x(size);
  for (float& value : x) value = normal(random);
  return x;
}

}  // namespace a2sf::test
