#include "kernels/cpu/matmul.h"

#include <ggml-cpu.h>

#include <algorithm>

namespace a2sf::cpu {
namespace {

constexpr int kOutputsPerTask = 48;  // long enough runs of rows for the prefetcher; few enough to balance two threads

// Outputs [first, last) of one product, for every row: a weight row stays in the first-level cache while rows pass by.
void compute_outputs(const Product& product, const std::byte* input, std::size_t input_row, int rows, int first,
                     int last) {
  const auto dot = ggml_get_type_traits_cpu(product.weight->type)->vec_dot;
  const int columns = static_cast<int>(product.weight->columns);
  for (int output = first; output < last; ++output) {
    const float bias = product.bias == nullptr ? 0 : reinterpret_cast<const float*>(product.bias->data)[output];
    for (int row = 0; row < rows; ++row) {
      float sum = 0;
      dot(columns, &sum, 0, product.weight->row(output), 0, input + static_cast<std::size_t>(row) * input_row, 0, 1);
      float& out = product.out.row(row)[output];
      out = (product.add ? out : 0) + sum + bias;
    }
  }
}

}  // namespace

const std::byte* Matmul::quantise(Activations in, int rows, ggml_type type) {
  if (type == GGML_TYPE_F32) return reinterpret_cast<const std::byte*>(in.data);
  const std::size_t row_bytes = ggml_row_size(type, in.columns);
  if (quantised_.size() < row_bytes * static_cast<std::size_t>(rows))
    quantised_.resize(row_bytes * static_cast<std::size_t>(rows));
  const auto from_float = ggml_get_type_traits_cpu(type)->from_float;
  pool_.run(rows, [&](int row, int) {
    from_float(in.row(row), quantised_.data() + row_bytes * static_cast<std::size_t>(row), in.columns);
  });
  return quantised_.data();
}

void Matmul::run(Activations in, int rows, std::span<const Product> products) {
  const std::byte* input = nullptr;
  for (std::size_t next = 0; next < products.size();) {
    // Products of weights that want the same kind of input are one parallel region.
    const ggml_type type = ggml_get_type_traits_cpu(products[next].weight->type)->vec_dot_type;
    std::size_t end = next;
    int tasks = 0;
    while (end < products.size() && ggml_get_type_traits_cpu(products[end].weight->type)->vec_dot_type == type) {
      tasks += (static_cast<int>(products[end].weight->rows) + kOutputsPerTask - 1) / kOutputsPerTask;
      ++end;
    }
    input = quantise(in, rows, type);
    const std::size_t input_row = ggml_row_size(type, in.columns);
    pool_.run(tasks, [&, next](int task, int) {
      std::size_t p = next;
      int first = task * kOutputsPerTask;
      while (first >= static_cast<int>(round_up(products[p].weight->rows, kOutputsPerTask))) {
        first -= static_cast<int>(round_up(products[p].weight->rows, kOutputsPerTask));
        ++p;
      }
      const int last = std::min(first + kOutputsPerTask, static_cast<int>(products[p].weight->rows));
      compute_outputs(products[p], input, input_row, rows, first, last);
    });
    next = end;
  }
}

}  // namespace a2sf::cpu
