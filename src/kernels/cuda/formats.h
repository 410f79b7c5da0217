// How weights lie in the GPU's memory, and what a product makes of them: for kernels, and for the tests of a machine
// without a GPU.
//
// ggml's blocks are of 18 to 210 bytes. Here a row is a few planes, each with one field of all its blocks (their
// quants, then their scales), so that neighbouring threads read neighbouring words.
#pragma once

#include <ggml.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define A2SF_HOST_DEVICE __host__ __device__
#else
#define A2SF_HOST_DEVICE
#endif

namespace a2sf::cuda {

A2SF_HOST_DEVICE inline float half_of(std::uint16_t bits) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(bits));
#else
  return ggml_fp16_to_fp32(bits);
#endif
}
A2SF_HOST_DEVICE inline float bf16_of(std::uint16_t word) {
  const std::uint32_t bits = static_cast<std::uint32_t>(word) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

struct alignas(16) Words4 {
  std::uint32_t words[4];
};
struct alignas(8) Words2 {
  std::uint32_t words[2];
};

// Of a weight, which a step reads once.
template <class T>
A2SF_HOST_DEVICE T streamed(const T* from) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 16) {
    const uint4 x = __ldcs(reinterpret_cast<const uint4*>(from));
    return T{x.x, x.y, x.z, x.w};
  } else if constexpr (sizeof(T) == 8) {
    const uint2 x = __ldcs(reinterpret_cast<const uint2*>(from));
    return T{x.x, x.y};
  } else {
    return __ldcs(from);
  }
#else
  return *from;
#endif
}

// c + the products of the four signed bytes of a and b.
A2SF_HOST_DEVICE inline int dot4(std::uint32_t a, std::uint32_t b, int c) {
#ifdef __CUDA_ARCH__
  return __dp4a(static_cast<int>(a), static_cast<int>(b), c);
#else
  for (int i = 0; i < 4; ++i)
    c += static_cast<std::int8_t>(a >> 8 * i & 255) * static_cast<std::int8_t>(b >> 8 * i & 255);
  return c;
#endif
}

// 32 inputs in 8 bits, of the columns 0 to 15 and 16 to 31: x = scale q. `sum` is that of the x.
struct QuantisedUnit {
  Words4 low, high;
  float scale, sum;
};
// 8 inputs.
struct FloatUnit {
  alignas(16) float values[8];
};

// A plane of a row: an entry of so many bytes for so many columns.
struct Plane {
  int columns, bytes;
};
inline constexpr int kMostPlanes = 4;

// Where the planes of a row begin.
struct Offsets {
  int of[kMostPlanes];
};

// A format: `block` columns take `bytes` in ggml's rows; a thread reads `unit` columns at once. `planes`: those of a
// row. pack(): block number i of ggml's row to where its planes are; floats stay as they are. load(): unit number u of
// a row. value(): a column of it. dot(): a unit of weights times one of inputs, which are an Input.

template <class T>
A2SF_HOST_DEVICE const T* plane_at(const std::uint8_t* row, int offset) {
  return reinterpret_cast<const T*>(row + offset);
}
inline void put(std::uint8_t* plane, std::int64_t index, const void* from, std::size_t bytes) {
  std::memcpy(plane + static_cast<std::size_t>(index) * bytes, from, bytes);
}

// ---- floats

struct F32 {
  using Input = FloatUnit;
  static constexpr int block = 1, bytes = 4, unit = 8;
  static constexpr Plane planes[] = {{8, 32}};
  struct Unit {
    Words4 low, high;
  };
  A2SF_HOST_DEVICE static Unit load(const std::uint8_t* row, const Offsets&, int u) {
    const auto* const words = plane_at<Words4>(row, 0) + 2 * u;
    return {streamed(words), streamed(words + 1)};
  }
  A2SF_HOST_DEVICE static float value(const Unit& w, int i) {
    float x;
    std::memcpy(&x, (i < 4 ? w.low.words : w.high.words) + i % 4, 4);
    return x;
  }
};

template <float (*to_float)(std::uint16_t)>
struct Words16 {
  using Input = FloatUnit;
  static constexpr int block = 1, bytes = 2, unit = 8;
  static constexpr Plane planes[] = {{8, 16}};
  using Unit = Words4;
  A2SF_HOST_DEVICE static Unit load(const std::uint8_t* row, const Offsets&, int u) {
    return streamed(plane_at<Words4>(row, 0) + u);
  }
  A2SF_HOST_DEVICE static float value(const Unit& w, int i) {
    return to_float(static_cast<std::uint16_t>(w.words[i / 2] >> 16 * (i % 2)));
  }
};
using F16 = Words16<half_of>;
using Bf16 = Words16<bf16_of>;

template <class Format>
constexpr bool has_floats = Format::block == 1;

template <class Format>
A2SF_HOST_DEVICE float dot(const typename Format::Unit& w, const typename Format::Input& x) {
  if constexpr (has_floats<Format>) {
    float sum = 0;
    for (int i = 0; i < Format::unit; ++i) sum = fmaf(Format::value(w, i), x.values[i], sum);
    return sum;
  } else {
    return Format::dot(w, x);
  }
}

// ---- 8 bits and fewer: x = scale q + minimum

struct Q8_0 {
  using Input = QuantisedUnit;
  static constexpr int block = 32, bytes = 34, unit = 32;
  static constexpr Plane planes[] = {{32, 32}, {32, 2}};
  struct Unit {
    Words4 low, high;
    std::uint16_t scale;
  };
  A2SF_HOST_DEVICE static Unit load(const std::uint8_t* row, const Offsets& at, int u) {
    const auto* const words = plane_at<Words4>(row, 0) + 2 * u;
    return {streamed(words), streamed(words + 1), streamed(plane_at<std::uint16_t>(row, at.of[1]) + u)};
  }
  A2SF_HOST_DEVICE static float dot(const Unit& w, const QuantisedUnit& x) {
    int sum = 0;
    for (int j = 0; j < 4; ++j) sum = dot4(w.low.words[j], x.low.words[j], sum);
    for (int j = 0; j < 4; ++j) sum = dot4(w.high.words[j], x.high.words[j], sum);
    return half_of(w.scale) * x.scale * static_cast<float>(sum);
  }
  A2SF_HOST_DEVICE static float value(const Unit& w, int i) {
    const Words4& half = i < 16 ? w.low : w.high;
    const std::uint32_t word = half.words[i % 16 / 4];
    return half_of(w.scale) * static_cast<float>(static_cast<std::int8_t>(word >> 8 * (i % 4) & 255));
  }
  static void pack(const std::uint8_t* data, std::int64_t i, std::uint8_t* const* plane) {
    put(plane[0], i, data + 2, 32);
    put(plane[1], i, data, 2);
  }
};

// Four bits each: byte i has column i in its low half, column 16 + i in its high one.
struct Nibbles {
  Words4 pairs;
  A2SF_HOST_DEVICE std::uint32_t low(int j) const { return pairs.words[j] & 0x0f0f0f0fU; }
  A2SF_HOST_DEVICE std::uint32_t high(int j) const { return pairs.words[j] >> 4 & 0x0f0f0f0fU; }
};
// Fifth bits, bit i of column i.
struct FifthBits {
  std::uint32_t bits;
  // Those of columns 4 j to 4 j + 3, each as the fifth of its byte.
  A2SF_HOST_DEVICE std::uint32_t of(int j) const { return (bits >> 4 * j & 15U) * 0x02040810U & 0x10101010U; }
};
struct NoFifthBits {
  A2SF_HOST_DEVICE static constexpr std::uint32_t of(int) { return 0; }
};

template <class Fifth>
A2SF_HOST_DEVICE float dot_of(const Nibbles& w, const Fifth& fifth, float scale, float minimum,
                              const QuantisedUnit& x) {
  int sum = 0;
  for (int j = 0; j < 4; ++j) sum = dot4(w.low(j) | fifth.of(j), x.low.words[j], sum);
  for (int j = 0; j < 4; ++j) sum = dot4(w.high(j) | fifth.of(4 + j), x.high.words[j], sum);
  return fmaf(scale * x.scale, static_cast<float>(sum), minimum * x.sum);
}
template <class Fifth>
A2SF_HOST_DEVICE float value_of(const Nibbles& w, const Fifth& fifth, float scale, float minimum, int i) {
  const int j = i % 16 / 4;
  const std::uint32_t word = i < 16 ? w.low(j) | fifth.of(j) : w.high(j) | fifth.of(4 + j);
  return scale * static_cast<float>(word >> 8 * (i % 4) & 255) + minimum;
}

// A format is a Unit with nibbles(), fifth(), scale() and minimum().
template <class Form>
struct Quants : Form {
  using Input = QuantisedUnit;
  static constexpr int unit = 32;
  using Unit = typename Form::Unit;
  A2SF_HOST_DEVICE static float dot(const Unit& w, const QuantisedUnit& x) {
    return dot_of(w.nibbles, w.fifth(), w.scale(), w.minimum(), x);
  }
  A2SF_HOST_DEVICE static float value(const Unit& w, int i) {
    return value_of(w.nibbles, w.fifth(), w.scale(), w.minimum(), i);
  }
};

// d (q - 8)
struct FormQ4_0 {
  static constexpr int block = 32, bytes = 18;
  static constexpr Plane planes[] = {{32, 16}, {32, 2}};
  struct Unit {
    Nibbles nibbles;
    std::uint16_t d;
    A2SF_HOST_DEVICE NoFifthBits fifth() const { return {}; }
    A2SF_HOST_DEVICE float scale() const { return half_of(d); }
    A2SF_HOST_DEVICE float minimum() const { return -8 * half_of(d); }
  };
  A2SF_HOST_DEVICE static Unit load(const std::uint8_t* row, const Offsets& at, int u) {
    return {{streamed(plane_at<Words4>(row, 0) + u)}, streamed(plane_at<std::uint16_t>(row, at.of[1]) + u)};
  }
  static void pack(const std::uint8_t* data, std::int64_t i, std::uint8_t* const* plane) {
    put(plane[0], i, data + 2, 16);
    put(plane[1], i, data, 2);
  }
};

// d q + m
struct FormQ4_1 {
  static constexpr int block = 32, bytes = 20;
  static constexpr Plane planes[] = {{32, 16}, {32, 4}};
  struct Unit {
    Nibbles nibbles;
    std::uint32_t dm;
    A2SF_HOST_DEVICE NoFifthBits fifth() const { return {}; }
    A2SF_HOST_DEVICE float scale() const { return half_of(static_cast<std::uint16_t>(dm)); }
    A2SF_HOST_DEVICE float minimum() const { return half_of(static_cast<std::uint16_t>(dm >> 16)); }
  };
  A2SF_HOST_DEVICE static Unit load(const std::uint8_t* row, const Offsets& at, int u) {
    return {{streamed(plane_at<Words4>(row, 0) + u)}, streamed(plane_at<std::uint32_t>(row, at.of[1]) + u)};
  }
  static void pack(const std::uint8_t* data, std::int64_t i, std::uint8_t* const* plane) {
    put(plane[0], i, data + 4, 16);
    put(plane[1], i, data, 4);
  }
};

// d (q - 16)
struct FormQ5_0 {
  static constexpr int block = 32, bytes = 22;
  static constexpr Plane planes[] = {{32, 16}, {32, 4}, {32, 2}};
  struct Unit {
    Nibbles nibbles;
    FifthBits fifth_bits;
    std::uint16_t d;
    A2SF_HOST_DEVICE FifthBits fifth() const { return fifth_bits; }
    A2SF_HOST_DEVICE float scale() const { return half_of(d); }
    A2SF_HOST_DEVICE float minimum() const { return -16 * half_of(d); }
  };
  A2SF_HOST_DEVICE static Unit load(const std::uint8_t* row, const Offsets& at, int u) {
    return {{streamed(plane_at<Words4>(row, 0) + u)},
            {streamed(plane_at<std::uint32_t>(row, at.of[1]) + u)},
            streamed(plane_at<std::uint16_t>(row, at.of[2]) + u)};
  }
  static void pack(const std::uint8_t* data, std::int64_t i, std::uint8_t* const* plane) {
    put(plane[0], i, data + 6, 16);
    put(plane[1], i, data + 2, 4);
    put(plane[2], i, data, 2);
  }
};

// ---- blocks of 256, in 8 parts with scales of their own

constexpr int kParts = 8;

// A block's 256 values of 4 bits are 64 in 32 bytes, the low halves the first 32 of them: a part's as Nibbles.
inline void pack_nibbles(const std::uint8_t* quants, int part, std::uint8_t* out) {
  const std::uint8_t* const from = quants + part / 2 * 32;
  const int shift = part % 2 * 4;
  for (int i = 0; i < 16; ++i)
    out[i] = static_cast<std::uint8_t>((from[i] >> shift & 15) | (from[16 + i] >> shift & 15) << 4);
}

// The scale and minimum, 6 bits each, of a part of a block of Q4_K or Q5_K, from 12 bytes.
inline void unpack_scales(const std::uint8_t* packed, int part, std::uint8_t* out) {
  const auto byte = [](int x) { return static_cast<std::uint8_t>(x); };
  if (part < 4) {
    out[0] = byte(packed[part] & 63);
    out[1] = byte(packed[part + 4] & 63);
  } else {
    out[0] = byte((packed[part + 4] & 15) | (packed[part - 4] >> 6 << 4));
    out[1] = byte(packed[part + 4] >> 4 | (packed[part] >> 6 << 4));
  }
}

// What a part of Q4_K or Q5_K has besides its quants: d scale q - dmin minimum.
struct PartScales {
  std::uint32_t d_and_dmin;
  std::uint16_t scales;
  A2SF_HOST_DEVICE float scale() const {
    return half_of(static_cast<std::uint16_t>(d_and_dmin)) * static_cast<float>(scales & 255);
  }
  A2SF_HOST_DEVICE float minimum() const {
    return -half_of(static_cast<std::uint16_t>(d_and_dmin >> 16)) * static_cast<float>(scales >> 8);
  }
};

struct FormQ4_K {
  static constexpr int block = 256, bytes = 144;
  static constexpr Plane planes[] = {{32, 16}, {32, 2}, {256, 4}};
  struct Unit : PartScales {
    Nibbles nibbles;
    A2SF_HOST_DEVICE NoFifthBits fifth() const { return {}; }
  };
  A2SF_HOST_DEVICE static Unit load(const std::uint8_t* row, const Offsets& at, int u) {
    return {{streamed(plane_at<std::uint32_t>(row, at.of[2]) + u / kParts),
             streamed(plane_at<std::uint16_t>(row, at.of[1]) + u)},
            {streamed(plane_at<Words4>(row, 0) + u)}};
  }
  static void pack(const std::uint8_t* data, std::int64_t i, std::uint8_t* const* plane) {
    for (int part = 0; part < kParts; ++part) {
      const std::int64_t u = i * kParts + part;
      pack_nibbles(data + 16, part, plane[0] + 16 * u);
      unpack_scales(data + 4, part, plane[1] + 2 * u);
    }
    put(plane[2], i, data, 4);
  }
};

struct FormQ5_K {
  static constexpr int block = 256, bytes = 176;
  static constexpr Plane planes[] = {{32, 16}, {32, 2}, {256, 4}, {32, 4}};
  struct Unit : PartScales {
    Nibbles nibbles;
    FifthBits fifth_bits;
    A2SF_HOST_DEVICE FifthBits fifth() const { return fifth_bits; }
  };
  A2SF_HOST_DEVICE static Unit load(const std::uint8_t* row, const Offsets& at, int u) {
    return {{streamed(plane_at<std::uint32_t>(row, at.of[2]) + u / kParts),
             streamed(plane_at<std::uint16_t>(row, at.of[1]) + u)},
            {streamed(plane_at<Words4>(row, 0) + u)},
            {streamed(plane_at<std::uint32_t>(row, at.of[3]) + u)}};
  }
  static void pack(const std::uint8_t* data, std::int64_t i, std::uint8_t* const* plane) {
    for (int part = 0; part < kParts; ++part) {
      const std::int64_t u = i * kParts + part;
      pack_nibbles(data + 48, part, plane[0] + 16 * u);
      unpack_scales(data + 4, part, plane[1] + 2 * u);
      std::uint32_t bits = 0;  // ggml: bit `part` of byte i is that of column i
      for (int column = 0; column < 32; ++column)
        bits |= static_cast<std::uint32_t>(data[16 + column] >> part & 1) << column;
      put(plane[3], u, &bits, 4);
    }
    put(plane[2], i, data, 4);
  }
};

// d scale (q - 32): 6 bits, a scale for 16 columns.
struct Q6_K {
  using Input = QuantisedUnit;
  static constexpr int block = 256, bytes = 210, unit = 32;
  static constexpr Plane planes[] = {{32, 16}, {32, 8}, {32, 2}, {256, 2}};
  struct Unit {
    Words4 pairs;    // low four bits, as Nibbles
    Words2 highest;  // bits 2 j and 2 j + 1 of byte i: the high two of column 4 j + i, 16 + 4 j + i in the other word
    std::uint16_t scales, d;
  };
  A2SF_HOST_DEVICE static Unit load(const std::uint8_t* row, const Offsets& at, int u) {
    return {streamed(plane_at<Words4>(row, 0) + u), streamed(plane_at<Words2>(row, at.of[1]) + u),
            streamed(plane_at<std::uint16_t>(row, at.of[2]) + u),
            streamed(plane_at<std::uint16_t>(row, at.of[3]) + u / kParts)};
  }
  // 4 (q - 32) of four columns, as signed bytes.
  A2SF_HOST_DEVICE static std::uint32_t low(const Unit& w, int j) {
    return ((w.pairs.words[j] << 2 & 0x3c3c3c3cU) | (w.highest.words[0] << (6 - 2 * j) & 0xc0c0c0c0U)) ^ 0x80808080U;
  }
  A2SF_HOST_DEVICE static std::uint32_t high(const Unit& w, int j) {
    return ((w.pairs.words[j] >> 2 & 0x3c3c3c3cU) | (w.highest.words[1] << (6 - 2 * j) & 0xc0c0c0c0U)) ^ 0x80808080U;
  }
  A2SF_HOST_DEVICE static float scale(const Unit& w, int half) {
    return half_of(w.d) * .25F * static_cast<float>(static_cast<std::int8_t>(w.scales >> 8 * half & 255));
  }
  A2SF_HOST_DEVICE static float dot(const Unit& w, const QuantisedUnit& x) {
    int first = 0, second = 0;
    for (int j = 0; j < 4; ++j) first = dot4(low(w, j), x.low.words[j], first);
    for (int j = 0; j < 4; ++j) second = dot4(high(w, j), x.high.words[j], second);
    return x.scale * fmaf(scale(w, 0), static_cast<float>(first), scale(w, 1) * static_cast<float>(second));
  }
  A2SF_HOST_DEVICE static float value(const Unit& w, int i) {
    const std::uint32_t word = i < 16 ? low(w, i / 4) : high(w, i % 16 / 4);
    return scale(w, i / 16) * static_cast<float>(static_cast<std::int8_t>(word >> 8 * (i % 4) & 255));
  }
  // ggml: halves of 128 columns; of each, 64 bytes of low bits (32 columns of 4 quarters) and 32 of high ones.
  static void pack(const std::uint8_t* data, std::int64_t i, std::uint8_t* const* plane) {
    for (int part = 0; part < kParts; ++part) {
      const std::int64_t u = i * kParts + part;
      const int half = part / 4, quarter = part % 4;
      const std::uint8_t* const from = data + half * 64 + quarter % 2 * 32;
      const std::uint8_t* const high_bits = data + 128 + half * 32;
      std::uint8_t highest[8] = {};
      for (int column = 0; column < 32; ++column) {
        const int nibble = from[column] >> (quarter / 2 * 4) & 15, top = high_bits[column] >> (2 * quarter) & 3;
        std::uint8_t& pair = plane[0][16 * u + column % 16];
        pair = static_cast<std::uint8_t>(column < 16 ? nibble : pair | nibble << 4);
        highest[column / 16 * 4 + column % 4] |= static_cast<std::uint8_t>(top << column % 16 / 4 * 2);
      }
      put(plane[1], u, highest, 8);
      put(plane[2], u, data + 192 + 2 * part, 2);
    }
    put(plane[3], i, data + 208, 2);
  }
};

using Q4_0 = Quants<FormQ4_0>;
using Q4_1 = Quants<FormQ4_1>;
using Q5_0 = Quants<FormQ5_0>;
using Q4_K = Quants<FormQ4_K>;
using Q5_K = Quants<FormQ5_K>;

// Calls function(format) with the format that stands for a type; false, and nothing is called, where there is none.
template <class Function>
bool with_format(ggml_type type, Function function) {
  switch (type) {
    case GGML_TYPE_F32:
      return function(F32{}), true;
    case GGML_TYPE_F16:
      return function(F16{}), true;
    case GGML_TYPE_BF16:
      return function(Bf16{}), true;
    case GGML_TYPE_Q8_0:
      return function(Q8_0{}), true;
    case GGML_TYPE_Q4_0:
      return function(Q4_0{}), true;
    case GGML_TYPE_Q4_1:
      return function(Q4_1{}), true;
    case GGML_TYPE_Q5_0:
      return function(Q5_0{}), true;
    case GGML_TYPE_Q4_K:
      return function(Q4_K{}), true;
    case GGML_TYPE_Q5_K:
      return function(Q5_K{}), true;
    case GGML_TYPE_Q6_K:
      return function(Q6_K{}), true;
    default:
      return false;
  }
}
inline bool has_format(ggml_type type) {
  return with_format(type, [](auto) {});
}

// Rows of a format and of so many columns.
struct RowLayout {
  Offsets offsets{};
  std::int64_t bytes = 0;  // of a row; what no column needs is zeros
};
template <class Format>
RowLayout layout_of(std::int64_t columns) {
  RowLayout layout;
  int plane = 0;
  for (const Plane& each : Format::planes) {
    layout.offsets.of[plane++] = static_cast<int>(layout.bytes);
    layout.bytes += ((columns + each.columns - 1) / each.columns * each.bytes + 15) / 16 * 16;
  }
  return layout;
}
// A row of ggml's blocks into a row that is zeros.
template <class Format>
void pack_row(const std::uint8_t* blocks, std::int64_t columns, const RowLayout& layout, std::uint8_t* row) {
  if constexpr (has_floats<Format>) {
    std::memcpy(row, blocks, static_cast<std::size_t>(columns) * Format::bytes);
  } else {
    std::uint8_t* planes[kMostPlanes];
    for (int i = 0; i < kMostPlanes; ++i) planes[i] = row + layout.offsets.of[i];
    for (std::int64_t i = 0; i < columns / Format::block; ++i) Format::pack(blocks + i * Format::bytes, i, planes);
  }
}

}  // namespace a2sf::cuda
