#include "kernels/cpu/packed_weight.h"

#include <cstring>

namespace a2sf::cpu {
namespace {

// One block of one row, as the file has it.
struct Block {
  std::uint8_t codes[256];
  std::uint16_t scale, minimum;  // f16
  std::uint8_t steps[16], minimum_steps[16];
};

std::uint16_t half_at(const std::uint8_t* from) {
  std::uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return bits;
}

// Byte i of a 32-column block holds columns i and i + 16.
void read_nibbles(const std::uint8_t* from, std::uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = from[i] & 15;
    codes[i + 16] = from[i] >> 4;
  }
}

void read_q5_0(const std::uint8_t* from, Block& block) {
  std::uint32_t high;
  std::memcpy(&high, from + 2, sizeof(high));
  read_nibbles(from + 6, block.codes);
  for (int i = 0; i < 32; ++i) block.codes[i] |= static_cast<std::uint8_t>((high >> i & 1) << 4);
}

// Eight 6-bit steps and eight 6-bit steps of the minimum in 12 bytes: the first four of each in the low six bits of
// bytes 0-3 and 4-7; of the others, the low halves in bytes 8-11 and the high two bits on top of bytes 0-3 and 4-7.
void read_q4_k(const std::uint8_t* from, Block& block) {
  block.minimum = half_at(from + 2);
  const std::uint8_t* packed = from + 4;
  for (int i = 0; i < 4; ++i) {
    block.steps[i] = packed[i] & 63;
    block.minimum_steps[i] = packed[i + 4] & 63;
    block.steps[i + 4] = static_cast<std::uint8_t>((packed[i + 8] & 15) | (packed[i] >> 6 << 4));
    block.minimum_steps[i + 4] = static_cast<std::uint8_t>((packed[i + 8] >> 4) | (packed[i + 4] >> 6 << 4));
  }
  for (int pair = 0; pair < 4; ++pair) {  // 64 columns: the low halves of 32 bytes, then the high ones
    for (int i = 0; i < 32; ++i) {
      const std::uint8_t byte = from[16 + pair * 32 + i];
      block.codes[pair * 64 + i] = byte & 15;
      block.codes[pair * 64 + 32 + i] = byte >> 4;
    }
  }
}

void read_q6_k(const std::uint8_t* from, Block& block) {
  block.scale = half_at(from + 208);
  std::memcpy(block.steps, from + 192, 16);  // signed
  for (int half = 0; half < 2; ++half) {
    const std::uint8_t* low = from + half * 64;
    const std::uint8_t* high = from + 128 + half * 32;
    for (int i = 0; i < 128; ++i) {
      const int low_bits = low[i % 64] >> (i / 64 * 4) & 15;
      const int high_bits = high[i % 32] >> (i / 32 * 2) & 3;
      block.codes[half * 128 + i] = static_cast<std::uint8_t>(low_bits | high_bits << 4);
    }
  }
}

void read_block(ggml_type type, const std::byte* data, Block& block) {
  const auto* from = reinterpret_cast<const std::uint8_t*>(data);
  block.scale = half_at(from);
  switch (type) {
    case GGML_TYPE_Q4_0:
      return read_nibbles(from + 2, block.codes);
    case GGML_TYPE_Q4_1:
      block.minimum = half_at(from + 2);
      return read_nibbles(from + 4, block.codes);
    case GGML_TYPE_Q5_0:
      return read_q5_0(from, block);
    case GGML_TYPE_Q8_0:
      std::memcpy(block.codes, from + 2, 32);
      return;
    case GGML_TYPE_Q4_K:
      return read_q4_k(from, block);
    default:
      return read_q6_k(from, block);
  }
}

void place_codes(const Block& block, const PackedFormat& format, int lanes, int lane, std::uint8_t* record) {
  std::uint8_t* low = record + format.scale_bytes(lanes);
  std::uint8_t* high = low + format.low_bytes(lanes);
  const int quads_per_word = 8 / format.low_bits, quads_per_sub = format.sub / 4;
  for (int column = 0; column < format.block; ++column) {
    const int quad = column / 4, byte = lane * 4 + column % 4;
    low[quad / quads_per_word * lanes * 4 + byte] |= static_cast<std::uint8_t>(
        (format.low_bits == 8 ? block.codes[column] : block.codes[column] & 15) << quad % quads_per_word * 4);
    if (format.high_bits > 0) {
      high[quad / quads_per_sub * lanes * 4 + byte] |=
          static_cast<std::uint8_t>(block.codes[column] >> 4 << quad % quads_per_sub * format.high_bits);
    }
  }
}

void place_scales(const Block& block, const PackedFormat& format, int lanes, int lane, std::uint8_t* record) {
  const auto put_half = [&](std::uint16_t bits) {
    std::memcpy(record + lane * 2, &bits, sizeof(bits));
    record += lanes * 2;
  };
  const auto put_steps = [&](const std::uint8_t* steps) {
    for (int sub = 0; sub < format.block / format.sub; ++sub, record += lanes) record[lane] = steps[sub];
  };
  put_half(block.scale);
  if (format.has_minimum) put_half(block.minimum);
  if (!format.has_steps) return;
  put_steps(block.steps);
  if (format.has_minimum) put_steps(block.minimum_steps);
}

void pack_row(const WeightView& weight, std::int64_t row, const PackedWeight& packed, std::byte* panel) {
  const PackedFormat& format = *packed.format;
  const int lane = static_cast<int>(row % packed.lanes);
  const std::byte* from = weight.row(row);
  const std::size_t record = format.record_bytes(packed.lanes);
  if (format.is_float()) {
    const auto size = static_cast<std::size_t>(format.block * format.low_bits / 8);
    for (std::int64_t column = 0; column < weight.columns; column += format.block, panel += record, from += size)
      std::memcpy(panel + static_cast<std::size_t>(lane) * size, from, size);
    return;
  }
  Block block;
  for (std::int64_t column = 0; column < weight.columns; column += format.block, panel += record) {
    read_block(weight.type, from, block);
    place_scales(block, format, packed.lanes, lane, reinterpret_cast<std::uint8_t*>(panel));
    place_codes(block, format, packed.lanes, lane, reinterpret_cast<std::uint8_t*>(panel));
    from += ggml_type_size(weight.type);
  }
}

}  // namespace

void pack(const WeightView& weight, PackedWeight& packed, ThreadPool& pool) {
  pool.run(static_cast<int>(packed.panels()), [&](int index, int) {
    std::byte* panel = packed.data + static_cast<std::size_t>(index) * packed.panel_bytes();
    const std::int64_t first = std::int64_t{index} * packed.lanes;
    for (std::int64_t row = first; row < first + packed.lanes && row < weight.rows; ++row)
      pack_row(weight, row, packed, panel);
  });
}

}  // namespace a2sf::cpu
