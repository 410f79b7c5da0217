// ggml's formats of weights, value by value: for kernels, and for the tests of a machine without a GPU.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define A2SF_HOST_DEVICE __host__ __device__
#else
#define A2SF_HOST_DEVICE
#endif

namespace a2sf::cuda {

// Little-endian, at even addresses on the GPU.
A2SF_HOST_DEVICE inline std::uint16_t word_at(const std::uint8_t* bytes) {
#ifdef __CUDA_ARCH__
  return *reinterpret_cast<const std::uint16_t*>(bytes);
#else
  return static_cast<std::uint16_t>(bytes[0] | bytes[1] << 8);
#endif
}
A2SF_HOST_DEVICE inline std::uint32_t two_words_at(const std::uint8_t* bytes) {
  return word_at(bytes) | static_cast<std::uint32_t>(word_at(bytes + 2)) << 16;
}

A2SF_HOST_DEVICE inline float half_of(std::uint16_t bits) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(bits));
#else
  return ggml_fp16_to_fp32(bits);
#endif
}
A2SF_HOST_DEVICE inline float half_at(const std::uint8_t* bytes) { return half_of(word_at(bytes)); }

A2SF_HOST_DEVICE inline float bf16_of(std::uint16_t word) {
  const std::uint32_t bits = static_cast<std::uint32_t>(word) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// 16 bytes: at once where they are aligned.
A2SF_HOST_DEVICE inline void copy_16(const std::uint8_t* from, void* to) {
#ifdef __CUDA_ARCH__
  if (reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
    *static_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    return;
  }
#endif
  std::memcpy(to, from, 16);
}

// float(number), exact below 2^23: conversions have a quarter of the other instructions' rate on a GPU.
A2SF_HOST_DEVICE inline float float_of(std::uint32_t number) {
  const std::uint32_t bits = 0x4b000000U | number;  // 2^23 + number
  float x;
  std::memcpy(&x, &bits, 4);
  return x - 8388608.0F;
}

// Values of a block that are read together: those of the columns `first` to `first` + 3 and `second` to `second` + 3.
struct Eight {
  alignas(16) float values[8];
  int first, second;
};

// A format: `block` consecutive values of a row take `bytes`; value(data, i) is the i-th of a block, eight(data, part)
// one of its block / 8 parts.

struct F32 {
  static constexpr int block = 8, bytes = 32;
  A2SF_HOST_DEVICE static float value(const std::uint8_t* data, int i) {
    float x;
    std::memcpy(&x, data + 4 * i, 4);
    return x;
  }
  A2SF_HOST_DEVICE static Eight eight(const std::uint8_t* data, int) {
    Eight all{{}, 0, 4};
    copy_16(data, all.values);
    copy_16(data + 16, all.values + 4);
    return all;
  }
};

template <float (*to_float)(std::uint16_t)>
struct Words {
  static constexpr int block = 8, bytes = 16;
  A2SF_HOST_DEVICE static float value(const std::uint8_t* data, int i) { return to_float(word_at(data + 2 * i)); }
  A2SF_HOST_DEVICE static Eight eight(const std::uint8_t* data, int) {
    alignas(16) std::uint16_t words[8];
    copy_16(data, words);
    Eight all{{}, 0, 4};
    for (int i = 0; i < 8; ++i) all.values[i] = to_float(words[i]);
    return all;
  }
};
using F16 = Words<half_of>;
using Bf16 = Words<bf16_of>;

// d q
struct Q8_0 {
  static constexpr int block = 32, bytes = 34;
  A2SF_HOST_DEVICE static float value(const std::uint8_t* data, int i) {
    return half_at(data) * static_cast<float>(static_cast<std::int8_t>(data[2 + i]));
  }
  A2SF_HOST_DEVICE static Eight eight(const std::uint8_t* data, int part) {
    const float d = half_at(data);
    Eight all{{}, 8 * part, 8 * part + 4};
    for (int i = 0; i < 8; i += 4) {
      const std::uint32_t four = two_words_at(data + 2 + 8 * part + i);
      for (int j = 0; j < 4; ++j) all.values[i + j] = d * (float_of((four >> 8 * j & 255) ^ 128) - 128);
    }
    return all;
  }
};

// Of 32 values in 16 bytes: the low halves are the first 16.
A2SF_HOST_DEVICE inline int nibble(const std::uint8_t* data, int i) { return data[i % 16] >> (i / 16 * 4) & 15; }

// d q + m of 4 bytes of them.
A2SF_HOST_DEVICE inline Eight eight_nibbles(const std::uint8_t* data, int part, float d, float m) {
  const std::uint32_t four = two_words_at(data + 4 * part);
  Eight all{{}, 4 * part, 4 * part + 16};
  for (int j = 0; j < 4; ++j) {
    all.values[j] = d * float_of(four >> 8 * j & 15) + m;
    all.values[j + 4] = d * float_of(four >> (8 * j + 4) & 15) + m;
  }
  return all;
}

// d (q - 8)
struct Q4_0 {
  static constexpr int block = 32, bytes = 18;
  A2SF_HOST_DEVICE static float value(const std::uint8_t* data, int i) {
    return half_at(data) * static_cast<float>(nibble(data + 2, i) - 8);
  }
  A2SF_HOST_DEVICE static Eight eight(const std::uint8_t* data, int part) {
    const float d = half_at(data);
    return eight_nibbles(data + 2, part, d, -8 * d);
  }
};

// d q + m
struct Q4_1 {
  static constexpr int block = 32, bytes = 20;
  A2SF_HOST_DEVICE static float value(const std::uint8_t* data, int i) {
    return half_at(data) * static_cast<float>(nibble(data + 4, i)) + half_at(data + 2);
  }
  A2SF_HOST_DEVICE static Eight eight(const std::uint8_t* data, int part) {
    return eight_nibbles(data + 4, part, half_at(data), half_at(data + 2));
  }
};

// Eight values of a format one by one.
template <class Format>
A2SF_HOST_DEVICE Eight eight_of(const std::uint8_t* data, int part) {
  Eight all{{}, 8 * part, 8 * part + 4};
  for (int i = 0; i < 8; ++i) all.values[i] = Format::value(data, 8 * part + i);
  return all;
}

// d (q - 16), the fifth bits in 4 bytes of their own
struct Q5_0 {
  static constexpr int block = 32, bytes = 22;
  A2SF_HOST_DEVICE static float value(const std::uint8_t* data, int i) {
    const int high = data[2 + i / 8] >> i % 8 & 1;
    return half_at(data) * static_cast<float>((nibble(data + 6, i) | high << 4) - 16);
  }
  A2SF_HOST_DEVICE static Eight eight(const std::uint8_t* data, int part) { return eight_of<Q5_0>(data, part); }
};

// The scale and minimum, 6 bits each, of the 8 parts of a block of Q4_K or Q5_K: 12 bytes.
struct ScaleAndMinimum {
  int scale, minimum;
  A2SF_HOST_DEVICE ScaleAndMinimum(const std::uint8_t* packed, int part) {
    if (part < 4) {
      scale = packed[part] & 63;
      minimum = packed[part + 4] & 63;
    } else {
      scale = (packed[part + 4] & 15) | (packed[part - 4] >> 6 << 4);
      minimum = packed[part + 4] >> 4 | (packed[part] >> 6 << 4);
    }
  }
};

// Of 256 values in 128 bytes, 64 in 32 bytes each: the low halves are the first 32 of them.
A2SF_HOST_DEVICE inline int nibble_of_64(const std::uint8_t* data, int i) {
  return data[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
}

// d scale q - dmin minimum
struct Q4_K {
  static constexpr int block = 256, bytes = 144;
  A2SF_HOST_DEVICE static float value(const std::uint8_t* data, int i) {
    const ScaleAndMinimum part(data + 4, i / 32);
    return half_at(data) * static_cast<float>(part.scale) * static_cast<float>(nibble_of_64(data + 16, i)) -
           half_at(data + 2) * static_cast<float>(part.minimum);
  }
  A2SF_HOST_DEVICE static Eight eight(const std::uint8_t* data, int part) { return eight_of<Q4_K>(data, part); }
};

// The same with fifth bits, of all parts side by side.
struct Q5_K {
  static constexpr int block = 256, bytes = 176;
  A2SF_HOST_DEVICE static float value(const std::uint8_t* data, int i) {
    const ScaleAndMinimum part(data + 4, i / 32);
    const int high = data[16 + i % 32] >> i / 32 & 1;
    return half_at(data) * static_cast<float>(part.scale) * static_cast<float>(nibble_of_64(data + 48, i) | high << 4) -
           half_at(data + 2) * static_cast<float>(part.minimum);
  }
  A2SF_HOST_DEVICE static Eight eight(const std::uint8_t* data, int part) { return eight_of<Q5_K>(data, part); }
};

// d scale (q - 32): 4 low bits, 2 high bits, scales of 16 values each
struct Q6_K {
  static constexpr int block = 256, bytes = 210;
  A2SF_HOST_DEVICE static float value(const std::uint8_t* data, int i) {
    const int half = i / 128, quarter = i % 128 / 32, at = i % 32;
    const int low = data[half * 64 + quarter % 2 * 32 + at] >> (quarter / 2 * 4) & 15;
    const int high = data[128 + half * 32 + at] >> (2 * quarter) & 3;
    const auto scale = static_cast<std::int8_t>(data[192 + i / 16]);
    return half_at(data + 208) * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
  }
  A2SF_HOST_DEVICE static Eight eight(const std::uint8_t* data, int part) { return eight_of<Q6_K>(data, part); }
};

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

}  // namespace a2sf::cuda
