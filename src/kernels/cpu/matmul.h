// Matrix products. Weights that load() has packed go through the panel kernels; all others, of every type ggml knows,
// through ggml's dot products. Activations are converted once per input.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/memory.h"
#include "core/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/panel_kernels.h"

namespace a2sf::cpu {

class Matmul {
 public:
  // Without kernels (nullptr) nothing is packed.
  Matmul(ThreadPool& pool, const PanelKernels* kernels) : pool_(pool), kernels_(kernels) {}
  // Packs a copy of the weight and notes it there. A type without a packed form is left as it is.
  Status load(WeightView& weight);
  // Makes room for inputs of so many rows and columns: run() allocates nothing. May throw std::bad_alloc.
  void reserve(int rows, int columns);
  // All products share the input. Every output adds up the whole of K in one order: batch invariant by construction.
  void run(Activations in, int rows, std::span<const Product> products);

 private:
  // A few large pieces of memory, so that weights lie in huge pages however small they are. Aligned to 64 bytes.
  Result<std::byte*> take(std::size_t wanted);
  void run_packed(Activations in, int rows, std::span<const Product> products);
  void run_mapped(Activations in, int rows, std::span<const Product> products);
  PanelInput convert(Activations in, int rows, std::span<const Product> products);
  void quantise(Activations in, int rows);
  const std::byte* quantise(Activations in, int rows, ggml_type type);

  ThreadPool& pool_;
  const PanelKernels* kernels_;
  std::vector<OwnedBuffer> slabs_;
  std::size_t taken_ = 0;  // of the last slab
  std::vector<std::unique_ptr<PackedWeight>> packed_;
  std::vector<std::int8_t> codes_;
  std::vector<InputBlock> blocks_;
  std::vector<std::byte> quantised_;
};

}  // namespace a2sf::cpu
