// The one matrix product of attention, compiled per instruction set: queries against keys, probabilities against
// values.
#if defined(A2SF_CHUNK_PRODUCT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef A2SF_CHUNK_PRODUCT_INL_H
#undef A2SF_CHUNK_PRODUCT_INL_H
#else
#define A2SF_CHUNK_PRODUCT_INL_H
#endif

#include <ggml.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace a2sf::cpu::HWY_NAMESPACE {

static_assert(kTile % kLanes == 0);

struct FormatF32 {
  using T = float;
  static V load(const float* from) { return hn::LoadU(F(), from); }
  static void store(V x, float* to) { hn::StoreU(x, F(), to); }
};
struct FormatF16 {
  using T = hwy::float16_t;
  static V load(const hwy::float16_t* from) { return load_halves(from); }
  static void store(V x, hwy::float16_t* to) {
    const F f;
    const V bounded = hn::Clamp(x, hn::Set(f, -kMostF16), hn::Set(f, kMostF16));
    if constexpr (kLanes == 1) {  // Highway's scalar conversion truncates, all others round
      const ggml_fp16_t half = ggml_fp32_to_fp16(hn::GetLane(bounded));
      std::memcpy(to, &half, sizeof(half));  // float16_t is a struct here and a number there
    } else {
      const hn::Rebind<hwy::float16_t, F> half;
      hn::StoreU(hn::DemoteTo(half, bounded), half, to);
    }
  }
};

// The micro-kernel: kRows rows times kTiles tiles of columns, with all sums in registers. Every sum is one chain over
// the depth, so that its bytes do not depend on how rows and tiles are grouped.
template <class Format, int kRows, int kTiles>
void multiply_block(const float* rows, std::ptrdiff_t row_step, const typename Format::T* matrix, const ChunkMatrix& p,
                    const std::byte* next, float factor, float* out, std::ptrdiff_t out_step) {
  const F f;
  constexpr int kPerTile = kTile / kLanes, kVectors = kTiles * kPerTile;
  const auto load = [&](int v) { return Format::load(matrix + v / kPerTile * p.tile_step + v % kPerTile * kLanes); };
  V sum[kRows][kVectors];
  A2SF_UNROLL
  for (int r = 0; r < kRows; ++r) {
    A2SF_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(f);
  }
  constexpr std::size_t kStepBytes = sizeof(typename Format::T) * kTiles * kTile;
  for (int k = 0; k < p.depth; ++k, matrix += p.depth_step) {
    if (next != nullptr) prefetch<kStepBytes>(next + static_cast<std::size_t>(k) * kStepBytes);
    if constexpr (kRows <= kVectors) {
      V weight[kRows];
      A2SF_UNROLL
      for (int r = 0; r < kRows; ++r) weight[r] = hn::Set(f, rows[r * row_step + k]);
      A2SF_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const V x = load(v);
        A2SF_UNROLL
        for (int r = 0; r < kRows; ++r) sum[r][v] = hn::MulAdd(weight[r], x, sum[r][v]);
      }
    } else {
      V x[kVectors];
      A2SF_UNROLL
      for (int v = 0; v < kVectors; ++v) x[v] = load(v);
      A2SF_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const V weight = hn::Set(f, rows[r * row_step + k]);
        A2SF_UNROLL
        for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(weight, x[v], sum[r][v]);
      }
    }
  }
  A2SF_UNROLL
  for (int r = 0; r < kRows; ++r) {
    A2SF_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(hn::Mul(sum[r][v], hn::Set(f, factor)), f, out + r * out_step + v * kLanes);
    }
  }
}

template <class Format, int kRows>
void multiply_rows(const float* rows, std::ptrdiff_t row_step, const ChunkMatrix& p, float factor, float* out,
                   std::ptrdiff_t out_step) {
  // Enough sums in flight to hide the latency of a multiply-add, few enough for 16 registers.
  constexpr int kTiles = std::max(1, (kRows <= 3 ? 4 : 2) * kLanes / kTile);
  const auto* matrix = reinterpret_cast<const typename Format::T*>(p.data);
  const std::ptrdiff_t tile_bytes = static_cast<std::ptrdiff_t>(sizeof(typename Format::T)) * p.depth * kTile;
  const int tiles = p.columns / kTile;
  const auto block = [&](auto count, int tile) {
    multiply_block<Format, kRows, count.value>(rows, row_step, matrix + tile * p.tile_step, p,
                                               p.next == nullptr ? nullptr : p.next + tile * tile_bytes, factor,
                                               out + tile * kTile, out_step);
  };
  int tile = 0;
  for (; tile + kTiles <= tiles; tile += kTiles) block(std::integral_constant<int, kTiles>(), tile);
  for (; tile < tiles; ++tile) block(std::integral_constant<int, 1>(), tile);
}

template <class Format>
void multiply_any(const float* rows, std::ptrdiff_t row_step, int count, ChunkMatrix matrix, float factor, float* out,
                  std::ptrdiff_t out_step) {
  constexpr void (*kByRows[])(const float*, std::ptrdiff_t, const ChunkMatrix&, float, float*, std::ptrdiff_t) = {
      multiply_rows<Format, 1>, multiply_rows<Format, 2>, multiply_rows<Format, 3>,
      multiply_rows<Format, 4>, multiply_rows<Format, 5>, multiply_rows<Format, 6>};
  constexpr int kMost = 6;
  // Groups of nearly equal size, because a single row makes poor use of what is loaded.
  for (int groups = (count + kMost - 1) / kMost; groups > 0; --groups) {
    const int size = (count + groups - 1) / groups;
    kByRows[size - 1](rows, row_step, matrix, factor, out, out_step);
    rows += size * row_step;
    out += size * out_step;
    count -= size;
    matrix.next = nullptr;
  }
}

inline void multiply(const float* rows, std::ptrdiff_t row_step, int count, const ChunkMatrix& matrix, float factor,
                     float* out, std::ptrdiff_t out_step) {
  const auto any = matrix.type == KvType::f16 ? multiply_any<FormatF16> : multiply_any<FormatF32>;
  any(rows, row_step, count, matrix, factor, out, out_step);
}

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
