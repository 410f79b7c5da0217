// Random weights: the same values on every device, made as fast as memory takes them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/memory.h"
#include "kernels/backend.h"

namespace a2sf {

// Rows of one tensor. A matrix has values that give a product outputs of the size of its inputs, a vector has values
// around 1. Rows are strung together from few quantised pieces, in an order that depends on the seed and the row.
class RandomRows {
 public:
  // The weight says type and columns. May throw std::bad_alloc.
  RandomRows(const WeightView& weight, WeightRole role, std::uint64_t seed);
  void write(std::int64_t row, std::byte* out) const;  // row_bytes() of it

 private:
  std::size_t row_bytes_, piece_bytes_;
  std::uint64_t seed_;
  std::vector<std::byte> pieces_;
};

// Owns the memory of weights: a few large pieces, so that they lie in huge pages however small they are.
class WeightMemory {
 public:
  explicit WeightMemory(Memory& memory) : memory_(&memory) {}
  Result<std::byte*> take(std::size_t bytes);  // zeroed, aligned to 64 bytes

 private:
  Memory* memory_;
  std::vector<OwnedBuffer> slabs_;
  std::size_t taken_ = 0;  // of the last one
};

// Writes all rows, as a file would have them, to memory of which the weight becomes a view.
Status make_random(WeightView& weight, const RandomRows& rows, WeightMemory& memory);

}  // namespace a2sf
