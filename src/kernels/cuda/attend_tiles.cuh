// Attention of up to four query heads to tiles of 16 slots, on tensor cores: by one warp, nothing but registers.
//
// An mma.m16n8k16 multiplies 16 rows with 8 columns of halves. Keys and values come as 16-byte loads that already are
// its operands, since the order of the summed index is free. Its 8 columns are four query heads twice: a query, or a
// softmax numerator, as a half, and what rounding it to a half has lost. So results are as exact as floats.
#pragma once

#include <cfloat>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/slots.cuh"

namespace a2sf::cuda {

constexpr int kHeads = 4;       // query heads of a warp
constexpr int kTileSlots = 16;  // kTile: a chunk is whole tiles
static_assert(kTileSlots == kTile);
constexpr float kLog2E = 1.44269504F;

// What a lane holds: of a 16 x 8 result, rows `row` and `row` + 8, columns 2 `pair` and 2 `pair` + 1.
struct Lane {
  int row = static_cast<int>(threadIdx.x) % kWarp / 4, pair = static_cast<int>(threadIdx.x) % 4;
  __device__ int head() const { return pair % 2 * 2; }  // of its first column
  __device__ bool is_rest() const { return pair >= 2; }
};

// c += a b, a: 16 x 16, b: 16 x 8.
__device__ inline void multiply_add(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                    std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ inline std::uint32_t transposed(std::uint32_t halves) {  // of 8 x 8, a row of pairs in each four lanes
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(halves));
  return halves;
}
__device__ inline std::uint32_t as_word(__half2 halves) { return *reinterpret_cast<std::uint32_t*>(&halves); }
// Both as halves, or what they lose as such.
__device__ inline std::uint32_t halves_of(float a, float b, bool rest) {
  const __half2 rounded = __floats2half2_rn(a, b);
  if (!rest) return as_word(rounded);
  const float2 back = __half22float2(rounded);
  return as_word(__floats2half2_rn(a - back.x, b - back.y));
}

// The queries as the second operand of Q K: column c is query head c % 4, from 4 on what rounding has lost of it.
template <int dims>
struct TileQueries {
  static constexpr int kChunks = dims / 32;
  uint4 words[kChunks];

  // columns: [8][pitch], of `stride` dims each, shared.
  __device__ TileQueries(const __half* columns, int pitch, int stride) {
    const Lane lane;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int first = c * 32 + lane.pair * 8;
      words[c] = first < stride ? *reinterpret_cast<const uint4*>(columns + lane.row * pitch + first) : uint4{};
    }
  }
};

// Of a warp, after its tiles: softmax numerators' sums and the values that they weigh, relative to a maximum, of the
// lane's two heads.
template <int dims>
struct TileSums {
  static constexpr int kGroups = (dims + 63) / 64;
  float maxima[2] = {-FLT_MAX, -FLT_MAX}, sums[2] = {};
  float outputs[kGroups][4][4] = {};  // 64 dims each: lane.row * 8 + 2 i, and the next one; columns as in Lane

  __device__ void rescale(const float (&larger)[2]) {
    const float factors[2] = {exp2f(maxima[0] - larger[0]), exp2f(maxima[1] - larger[1])};
    for (int j = 0; j < 2; ++j) {
      maxima[j] = larger[j];
      sums[j] *= factors[j];
    }
#pragma unroll
    for (auto& group : outputs) {
#pragma unroll
      for (auto& of_dims : group) {
        for (int e = 0; e < 4; ++e) of_dims[e] *= factors[e % 2];
      }
    }
  }

  // Into shared memory.
  template <class Shared>
  __device__ void leave(Shared& shared) {
    const Lane lane;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    for (int j = 0; j < 2; ++j) {
      for (int distance = 4; distance < kWarp; distance *= 2) sums[j] += __shfl_xor_sync(kAllLanes, sums[j], distance);
      if (lane.row != 0 || lane.is_rest()) continue;
      shared.maxima[warp][lane.head() + j] = maxima[j];
      shared.sums[warp][lane.head() + j] = sums[j];
    }
#pragma unroll
    for (int h = 0; h < kGroups; ++h) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        for (int e = 0; e < 4; ++e) {
          const float both = outputs[h][i][e] + __shfl_xor_sync(kAllLanes, outputs[h][i][e], 2);
          const int dim = h * 64 + lane.row * 8 + 2 * i + e / 2;
          if (!lane.is_rest() && dim < dims) shared.of_warps[warp][lane.head() + e % 2][dim] = both;
        }
      }
    }
  }
};

// The row's own token: its slot, and what that will hold, in shared memory.
struct FreshToken {
  int slot;
  const __half *key, *value;
};

// The tiles of a range of slots that one warp goes through, every `warps`-th.
template <int dims>
class SlotTiles {
  static constexpr int kChunks = TileQueries<dims>::kChunks, kGroups = TileSums<dims>::kGroups;

 public:
  __device__ SlotTiles(const Slots<__half>& slots, int stride, int warps)
      : slots_(slots), stride_(stride), warps_(warps) {}

  // Asks for the first tile of these slots.
  __device__ void begin(int first, int end) {
    tile_ = first / kTileSlots + static_cast<int>(threadIdx.x) / kWarp;
    end_ = (end + kTileSlots - 1) / kTileSlots;
    if (tile_ >= end_) return;
    ask_for_keys(tile_);
    ask_for_values(tile_);
  }

  // All of them. sees(slot, position), keep(query head, slot, logit to base 2). False: a logit is not finite.
  template <class Sees, class Keep>
  __device__ bool attend(const TileQueries<dims>& queries, const FreshToken& fresh, TileSums<dims>& sums, Sees sees,
                         Keep keep) {
    bool finite = true;
    for (; tile_ < end_; tile_ += warps_) {
      const int first = tile_ * kTileSlots, next = tile_ + warps_;
      if (fresh.slot / kTileSlots == tile_) insert(fresh);
      float logits[4];  // of rows row and row + 8, of the lane's two heads
      multiply_keys(queries, logits);
      const bool seen[2] = {sees(first + lane_.row, positions_[0]), sees(first + lane_.row + 8, positions_[1])};
      if (next < end_) ask_for_keys(next);
      for (int e = 0; e < 4; ++e) {
        if (!seen[e / 2]) logits[e] = -FLT_MAX;
        finite &= isfinite(logits[e]) != 0;
        if (!lane_.is_rest()) keep(lane_.head() + e % 2, first + lane_.row + e / 2 * 8, logits[e]);
      }
      weigh_values(logits, sums);
      if (next < end_) ask_for_values(next);
    }
    return finite;
  }

 private:
  __device__ static uint4 load(const __half* from) { return __ldcs(reinterpret_cast<const uint4*>(from)); }

  // Rows `row` and `row` + 8 of the tile; of 32 dims, the 8 from 8 `pair` on.
  __device__ void ask_for_keys(int tile) {
    const int first = tile * kTileSlots;
    const __half* const keys = slots_.key(first) + lane_.row * stride_ + lane_.pair * 8;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const bool exists = c * 32 + lane_.pair * 8 < stride_;
      for (int h = 0; h < 2; ++h) keys_[c][h] = exists ? load(keys + h * 8 * stride_ + c * 32) : uint4{};
    }
    for (int h = 0; h < 2; ++h) positions_[h] = slots_.position(first + lane_.row + h * 8);
  }
  // Slots 2 `pair`, the next one, and both + 8; of 64 dims, the 8 from 8 `row` on.
  __device__ static int value_slot(int pair, int r) { return 2 * pair + r % 2 + r / 2 * 8; }
  __device__ void ask_for_values(int tile) {
    const __half* const values = slots_.value(tile * kTileSlots) + lane_.row * 8;
#pragma unroll
    for (int h = 0; h < kGroups; ++h) {
      const bool exists = h * 64 + lane_.row * 8 < stride_;
      for (int r = 0; r < 4; ++r)
        values_[h][r] = exists ? load(values + value_slot(lane_.pair, r) * stride_ + h * 64) : uint4{};
    }
  }

  // The row's own token in place of what its slot held.
  __device__ void insert(const FreshToken& fresh) {
    const int at = fresh.slot % kTileSlots;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int dim = c * 32 + lane_.pair * 8;
      for (int h = 0; h < 2; ++h)
        if (lane_.row + h * 8 == at && dim < stride_) keys_[c][h] = *reinterpret_cast<const uint4*>(fresh.key + dim);
    }
#pragma unroll
    for (int h = 0; h < kGroups; ++h) {
      const int dim = h * 64 + lane_.row * 8;
      for (int r = 0; r < 4; ++r)
        if (value_slot(lane_.pair, r) == at && dim < stride_)
          values_[h][r] = *reinterpret_cast<const uint4*>(fresh.value + dim);
    }
  }

  __device__ void multiply_keys(const TileQueries<dims>& queries, float (&logits)[4]) const {
    float even[4] = {}, odd[4] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const uint4 &low = keys_[c][0], &high = keys_[c][1], &q = queries.words[c];
      multiply_add(even, low.x, high.x, low.y, high.y, q.x, q.y);
      multiply_add(odd, low.z, high.z, low.w, high.w, q.z, q.w);
    }
    for (int e = 0; e < 4; ++e) {
      const float half = even[e] + odd[e];
      logits[e] = half + __shfl_xor_sync(kAllLanes, half, 2);
    }
  }

  __device__ void weigh_values(const float (&logits)[4], TileSums<dims>& sums) const {
    float larger[2];
    for (int j = 0; j < 2; ++j) {
      larger[j] = fmaxf(logits[j], logits[j + 2]);
      for (int distance = 4; distance < kWarp; distance *= 2)
        larger[j] = fmaxf(larger[j], __shfl_xor_sync(kAllLanes, larger[j], distance));
      larger[j] = fmaxf(larger[j], sums.maxima[j]);
    }
    if (__any_sync(kAllLanes, larger[0] > sums.maxima[0] || larger[1] > sums.maxima[1])) sums.rescale(larger);
    float numerators[4];
    for (int e = 0; e < 4; ++e) {
      numerators[e] = logits[e] == -FLT_MAX ? 0 : exp2f(logits[e] - sums.maxima[e % 2]);
      sums.sums[e % 2] += numerators[e];
    }
    const std::uint32_t first = transposed(halves_of(numerators[0], numerators[1], lane_.is_rest())),
                        second = transposed(halves_of(numerators[2], numerators[3], lane_.is_rest()));
#pragma unroll
    for (int h = 0; h < kGroups; ++h) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t v[4] = {(&values_[h][0].x)[i], (&values_[h][1].x)[i], (&values_[h][2].x)[i],
                                    (&values_[h][3].x)[i]};
        multiply_add(sums.outputs[h][i], low_halves(v[0], v[1]), high_halves(v[0], v[1]), low_halves(v[2], v[3]),
                     high_halves(v[2], v[3]), first, second);
      }
    }
  }
  __device__ static std::uint32_t low_halves(std::uint32_t a, std::uint32_t b) { return __byte_perm(a, b, 0x5410); }
  __device__ static std::uint32_t high_halves(std::uint32_t a, std::uint32_t b) { return __byte_perm(a, b, 0x7632); }

  const Slots<__half>& slots_;
  int stride_, warps_, tile_ = 0, end_ = 0;
  Lane lane_;
  uint4 keys_[kChunks][2], values_[kGroups][4];
  std::int32_t positions_[2];
};

}  // namespace a2sf::cuda
