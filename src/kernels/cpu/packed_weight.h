// Weights regrouped for the matrix kernels. `lanes` output rows form a panel, so that one vector holds the same columns
// of several rows and a product needs no horizontal sums. The file's integers and scales are kept bit for bit; only
// their order changes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/thread_pool.h"
#include "kernels/weight.h"

namespace a2sf::cpu {

// How one weight type lies in a panel: records of `block` columns, one after the other.
//
//   record = scale f16 [lanes] | minimum f16 [lanes]
//          | step u8 [block / sub][lanes] | step of minimum u8 [block / sub][lanes]
//          | low bits [block / sub][sub * low_bits / 32][lanes][4 bytes] | high bits [block / sub][lanes][4 bytes]
//
// without the parts that a type lacks. Columns go in quads: four neighbouring columns of a lane are the four bytes of
// a 32-bit word. Of 4-bit codes a word holds two quads, the first in the low halves of its bytes. The word of high bits
// holds those of all quads of its sub-block, the first lowest.
// Floating-point types have no scales: [lanes][block].
struct PackedFormat {
  ggml_type type;
  int block, sub;  // columns per record; per scale
  int low_bits, high_bits;
  bool has_minimum;
  bool has_steps;  // sub-blocks have integer factors of the record's scale (and minimum)

  constexpr bool is_float() const { return low_bits >= 16; }
  constexpr std::size_t scale_bytes(int lanes) const {
    if (is_float()) return 0;
    const int parts = has_minimum ? 2 : 1;
    return static_cast<std::size_t>(parts * lanes * (2 + (has_steps ? block / sub : 0)));
  }
  constexpr std::size_t low_bytes(int lanes) const { return static_cast<std::size_t>(lanes * block * low_bits / 8); }
  constexpr std::size_t record_bytes(int lanes) const {
    return scale_bytes(lanes) + low_bytes(lanes) + static_cast<std::size_t>(lanes * block * high_bits / 8);
  }
};

inline constexpr PackedFormat kPackedFormats[] = {
    {GGML_TYPE_Q4_0, 32, 32, 4, 0, false, false}, {GGML_TYPE_Q4_1, 32, 32, 4, 0, true, false},
    {GGML_TYPE_Q5_0, 32, 32, 4, 1, false, false}, {GGML_TYPE_Q8_0, 32, 32, 8, 0, false, false},
    {GGML_TYPE_Q4_K, 256, 32, 4, 0, true, true},  {GGML_TYPE_Q6_K, 256, 16, 4, 2, false, true},
    {GGML_TYPE_BF16, 2, 2, 16, 0, false, false},  {GGML_TYPE_F16, 1, 1, 16, 0, false, false},
    {GGML_TYPE_F32, 1, 1, 32, 0, false, false},
};

// nullptr for a type that has no packed form. The columns of a weight must be whole blocks.
constexpr const PackedFormat* packed_format(ggml_type type) {
  for (const PackedFormat& format : kPackedFormats) {
    if (format.type == type) return &format;
  }
  return nullptr;
}

// Does not own its panels.
struct PackedWeight {
  const PackedFormat* format = nullptr;
  int lanes = 0;
  std::int64_t rows = 0, columns = 0;
  std::byte* data = nullptr;  // [panels][records]; the rows that fill up the last panel are zero

  std::int64_t panels() const { return (rows + lanes - 1) / lanes; }
  std::size_t panel_bytes() const {
    return static_cast<std::size_t>(columns / format->block) * format->record_bytes(lanes);
  }
  const std::byte* panel(std::int64_t index) const { return data + static_cast<std::size_t>(index) * panel_bytes(); }
};

// The shape of `weight` in panels. Its data is for the caller to set: panels() * panel_bytes() zeroed bytes.
inline PackedWeight packed_shape(const WeightView& weight, int lanes) {
  return {packed_format(weight.type), lanes, weight.rows, weight.columns, nullptr};
}

// Fills the panels from the file's rows.
void pack(const WeightView& weight, PackedWeight& packed, ThreadPool& pool);

}  // namespace a2sf::cpu
