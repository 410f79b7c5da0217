// What a scored row of logits costs over its product: log_sum_exp in plain loops and in vectors, by vocabulary.
//   build/release/bench/a2sf_kernel_bench --benchmark_filter=LogSumExp
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/logits.h"

namespace a2sf {
namespace {

void run(benchmark::State& state, LogSumExp log_sum_of) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(static_cast<std::size_t>(state.range(0)));
  for (float& logit : logits) logit = normal(random);
  for (auto _ : state) benchmark::DoNotOptimize(log_sum_of(logits));
}

void PlainLogSumExp(benchmark::State& state) { run(state, log_sum_exp); }
void VectorLogSumExp(benchmark::State& state) {
  run(state, cpu::kernels_of(cpu::supported_isas().front()).rows.log_sum_exp);
}

// SmolLM2 and Gemma 3.
BENCHMARK(PlainLogSumExp)->Arg(49152)->Arg(262144)->Unit(benchmark::kMicrosecond);
BENCHMARK(VectorLogSumExp)->Arg(49152)->Arg(262144)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace a2sf
