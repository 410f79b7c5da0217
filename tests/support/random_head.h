// A small cache of one head and random rows to put through it.
#pragma once

#include <random>
#include <vector>

#include "cache/sequence_cache.h"
#include "policy/retention.h"

namespace a2sf::test {

inline SequenceCache one_head_cache(int dim, KvType type, std::int64_t slots) {
  return std::move(SequenceCache::create(host_memory(), {1, 1, dim, type}, {slots}).value());
}

inline std::vector<float> random_vector(std::mt19937& random, std::size_t size, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> x(size);
  for (float& value : x) value = normal(random);
  return x;
}

}  // namespace a2sf::test
