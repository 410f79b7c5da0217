// Packed weights times rows of activations, one thread: bytes of weights and products per second, in the cache and
// from memory.
#include <benchmark/benchmark.h>
#include <ggml-cpu.h>

#include <algorithm>
#include <random>
#include <vector>

#include "core/memory.h"
#include "core/thread_pool.h"
#include "kernels/cpu/kernels.h"

namespace a2sf::cpu {
namespace {

void multiply(benchmark::State& state, Isa isa, ggml_type type, int rows, std::int64_t outputs, std::int64_t columns) {
  const PanelKernels& kernels = *kernels_of(isa).panels;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  // Every row of weights is the same: the kernels do not see that.
  std::vector<float> row(static_cast<std::size_t>(columns));
  for (float& x : row) x = normal(random);
  const std::size_t row_bytes = ggml_row_size(type, columns);
  std::vector<std::byte> file(row_bytes * static_cast<std::size_t>(outputs));
  ggml_quantize_chunk(type, row.data(), file.data(), 0, 1, columns, nullptr);
  for (std::int64_t output = 1; output < outputs; ++output)
    std::copy_n(file.begin(), row_bytes, file.begin() + output * static_cast<std::ptrdiff_t>(row_bytes));
  const WeightView view{type, outputs, columns, file.data()};
  PackedWeight weight = packed_shape(view, kernels.lanes);
  const std::size_t bytes = static_cast<std::size_t>(weight.panels()) * weight.panel_bytes();
  const auto buffer = OwnedBuffer::create(host_memory(), bytes);
  weight.data = buffer->data();
  ThreadPool pool(1);
  pack(view, weight, pool);

  const auto count = static_cast<std::size_t>(rows * columns);
  std::vector<float> values(count), out(static_cast<std::size_t>(rows * outputs));
  std::vector<std::int8_t> codes(count);
  std::vector<InputBlock> blocks(count / kInputBlock);
  std::vector<ggml_bf16_t> rounded(count);
  for (float& x : values) x = normal(random);
  ggml_cpu_fp32_to_bf16(values.data(), rounded.data(), rows * columns);
  kernels.quantise(values.data(), rows * columns, codes.data(), blocks.data());
  const PanelProduct product{&weight,
                             {values.data(), codes.data(), blocks.data(), rounded.data(), columns},
                             nullptr,
                             {out.data(), static_cast<int>(outputs)},
                             false};
  for (auto _ : state) {
    kernels.multiply(product, {0, weight.panels(), 0, rows});
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes) * state.iterations());
  state.counters["products"] =
      benchmark::Counter(static_cast<double>(rows * outputs * columns), benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = [] {
  for (const Isa isa : supported_isas()) {
    if (kernels_of(isa).panels == nullptr) continue;
    for (const PackedFormat& format : kPackedFormats) {
      const auto add = [&](const char* where, int rows, std::int64_t outputs, std::int64_t columns) {
        const std::string name = "multiply/" + name_of(isa) + "/" + ggml_type_name(format.type) + "/" + where +
                                 "/rows:" + std::to_string(rows);
        benchmark::RegisterBenchmark(name.c_str(), multiply, isa, format.type, rows, outputs, columns);
      };
      add("cached", 1, 128, 512);
      add("memory", 1, 65536, 1024);
      add("cached", 64, 128, 512);
    }
  }
  return true;
}();

}  // namespace
}  // namespace a2sf::cpu
