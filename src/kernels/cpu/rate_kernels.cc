// foreach_target.h includes this source once per target of targets.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rate_kernels.cc"
// In the order that Highway wants.
// clang-format off
#include "kernels/cpu/targets.h"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "kernels/cpu/rate_kernels.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/memory.h"
#include "kernels/cpu/byte_product-inl.h"
#include "kernels/cpu/float_columns-inl.h"

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
HWY_PUSH_ATTRIBUTES(A2SF_TARGET)
namespace a2sf::cpu::HWY_NAMESPACE {

std::int64_t read_all(const std::byte* data, std::size_t bytes) {
  constexpr std::size_t kStep = 256, kVector = kLanes * 4;
  VI32 sums[4];
  for (VI32& sum : sums) sum = hn::Zero(I32());
  for (std::size_t at = 0; at < bytes; at += kStep) {
    prefetch<kStep>(data + at + kPrefetchDistance);
    A2SF_UNROLL
    for (std::size_t i = 0; i < kStep / kVector; ++i) {
      const auto* from = reinterpret_cast<const std::int32_t*>(data + at + i * kVector);
      sums[i % 4] = hn::Add(sums[i % 4], hn::LoadU(I32(), from));
    }
  }
  return hn::GetLane(hn::SumOfLanes(I32(), hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
}

constexpr int kQuads = 8, kChains = 8;

std::int64_t multiply_codes(int rounds) {
  alignas(64) std::int8_t input[kQuads * 4 * kChains];
  std::fill(std::begin(input), std::end(input), static_cast<std::int8_t>(rounds & 7));
  VU8 codes[kQuads];
  for (VU8& code : codes) code = hn::Set(U8(), static_cast<std::uint8_t>(rounds & 15));
  VI32 sum = hn::Zero(I32());
  for (int round = 0; round < rounds; ++round) {
    // The compiler must take the input for another one in every round, or it would compute the loop only once.
    asm volatile("" : : "r"(input) : "memory");
    for (int chain = 0; chain < kChains; ++chain) sum = hn::Add(sum, dot<4>(codes, input + chain * kQuads * 4));
  }
  return hn::GetLane(hn::SumOfLanes(I32(), sum));
}

template <class MultiplyAdd>
HWY_INLINE std::int64_t repeat(int rounds, const MultiplyAdd& multiply_add) {
  V sums[kChains];
  for (V& sum : sums) sum = hn::Set(F(), 1.0F);
  for (int round = 0; round < rounds; ++round) {
    A2SF_UNROLL
    for (int chain = 0; chain < kChains; ++chain) sums[chain] = multiply_add(sums[chain]);
  }
  V sum = hn::Zero(F());
  for (const V& part : sums) sum = hn::Add(sum, part);
  return static_cast<std::int64_t>(hn::GetLane(hn::SumOfLanes(F(), sum)));
}

std::int64_t multiply_reals(int rounds) {
  const V x = hn::Set(F(), static_cast<float>(rounds) * 1e-9F);
  return repeat(rounds, [x](V sum) HWY_ATTR { return hn::MulAdd(sum, x, x); });
}

#if HWY_TARGET == HWY_AVX3
std::int64_t multiply_pairs(int rounds) {
  const VI32 x = hn::Set(I32(), rounds & 15);
  return repeat(rounds, [x](V sum) HWY_ATTR { return multiply_add_bf16(x, x, sum); });
}
#endif

constexpr std::int64_t kByteProducts = kChains * kQuads * 4 * kLanes, kFloatProducts = kChains * kLanes;
const RateKernels kRateKernels = {read_all,      multiply_codes, multiply_reals, multiply_reals,
                                  kByteProducts, kFloatProducts, kFloatProducts};

#if HWY_TARGET == HWY_AVX3
const RateKernels kBf16RateKernels = {read_all,      multiply_codes, multiply_reals,    multiply_pairs,
                                      kByteProducts, kFloatProducts, 2 * kFloatProducts};
#endif

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_POP_ATTRIBUTES

namespace a2sf::cpu {
template <>
const RateKernels& rate_kernels<HWY_NAMESPACE::kIsa>() {
  return HWY_NAMESPACE::kRateKernels;
}
#if HWY_TARGET == HWY_AVX3
template <>
const RateKernels& rate_kernels<Isa::avx512bf16>() {
  return HWY_NAMESPACE::kBf16RateKernels;
}
#endif
}  // namespace a2sf::cpu
#endif

#if HWY_ONCE
namespace a2sf::cpu {
namespace {

// The best of several tries, by all threads together, because other load on the machine can only slow a try down.
template <class Work>
double best_rate(ThreadPool& pool, double amount_per_thread, const Work& work) {
  constexpr int kTries = 7;
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    pool.run(pool.threads(), [&](int task, int) { work(task); });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::max(best, amount_per_thread * pool.threads() / seconds);
  }
  return best;
}

}  // namespace

Result<MachineRates> measure_rates(ThreadPool& pool, const RateKernels& kernels) {
  constexpr std::size_t kBytes = std::size_t{512} << 20;  // more than any cache holds
  constexpr int kRounds = 100000;
  auto buffer = OwnedBuffer::create(host_memory(), kBytes);
  if (!buffer) return tl::unexpected(buffer.error());
  const std::size_t share = kBytes / static_cast<std::size_t>(pool.threads()) / 4096 * 4096;
  std::vector<std::int64_t> results(static_cast<std::size_t>(pool.threads()));
  const auto result = [&](int task) -> std::int64_t& { return results[static_cast<std::size_t>(task)]; };
  std::fill_n(buffer->data(), kBytes, std::byte{1});  // else all pages would be the one page of zeros
  MachineRates rates{};
  rates.read_bytes_per_s = best_rate(pool, static_cast<double>(share), [&](int task) {
    result(task) += kernels.read(buffer->data() + static_cast<std::size_t>(task) * share, share);
  });
  rates.byte_products_per_s = best_rate(pool, static_cast<double>(kRounds * kernels.byte_products),
                                        [&](int task) { result(task) += kernels.multiply_bytes(kRounds); });
  rates.float_products_per_s = best_rate(pool, static_cast<double>(kRounds * kernels.float_products),
                                         [&](int task) { result(task) += kernels.multiply_floats(kRounds); });
  rates.bf16_products_per_s = best_rate(pool, static_cast<double>(kRounds * kernels.bf16_products),
                                        [&](int task) { result(task) += kernels.multiply_bf16(kRounds); });
  return rates;
}

}  // namespace a2sf::cpu
#endif
