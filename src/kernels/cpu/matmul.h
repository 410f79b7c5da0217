// Matrix products on ggml's dot products: every weight type ggml knows, activations quantised once per input.
#pragma once

#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/backend.h"

namespace a2sf::cpu {

class Matmul {
 public:
  explicit Matmul(ThreadPool& pool) : pool_(pool) {}
  // All products share the input. Every output is one dot product over the whole of K: batch invariant by construction.
  void run(Activations in, int rows, std::span<const Product> products);

 private:
  const std::byte* quantise(Activations in, int rows, ggml_type type);

  ThreadPool& pool_;
  std::vector<std::byte> quantised_;
};

}  // namespace a2sf::cpu
