// Matrix products. Weights that load() has packed go through the panel kernels; all others, of every type ggml knows,
// through ggml's dot products. Activations are converted once per input.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/host/activations.h"
#include "kernels/random_weights.h"

namespace a2sf::cpu {

class Matmul {
 public:
  // Without kernels (nullptr) nothing is packed.
  Matmul(ThreadPool& pool, const PanelKernels* kernels, Memory& memory)
      : pool_(pool), kernels_(kernels), memory_(memory) {}
  // Packs a copy of the weight and notes it there. A type without a packed form is left as it is.
  Status load(WeightView& weight);
  // Packs random rows, some at a time, so that they are never all in memory unpacked.
  Status load_random(WeightView& weight, const RandomRows& rows);
  // Makes room for inputs of so many rows and columns: run() allocates nothing. May throw std::bad_alloc.
  void reserve(int rows, int columns);
  // All products share the input. Every output adds up the whole of K in one order: batch invariant by construction.
  void run(HostRows in, int rows, std::span<const HostProduct> products);

 private:
  bool can_pack(const WeightView& weight) const;
  // Gives the weight a packed form, which is still empty.
  Result<PackedWeight*> add_packed(WeightView& weight);
  void run_packed(HostRows in, int rows, std::span<const HostProduct> products);
  void run_mapped(HostRows in, int rows, std::span<const HostProduct> products);
  PanelInput convert(HostRows in, int rows, std::span<const HostProduct> products);
  void quantise(HostRows in, int rows);
  const std::byte* quantise(HostRows in, int rows, ggml_type type);

  ThreadPool& pool_;
  const PanelKernels* kernels_;
  WeightMemory memory_;
  std::vector<std::unique_ptr<PackedWeight>> packed_;
  std::vector<std::int8_t> codes_;
  std::vector<InputBlock> blocks_;
  std::vector<std::byte> quantised_;
};

}  // namespace a2sf::cpu
