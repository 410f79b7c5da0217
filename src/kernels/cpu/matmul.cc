#include "kernels/cpu/matmul.h"

#include <ggml-cpu.h>

#include <algorithm>

#include "kernels/rows.h"

namespace a2sf::cpu {
namespace {

constexpr std::size_t kSlab = std::size_t{64} << 20;
constexpr std::size_t kTaskBytes = 32 << 10;  // of weights: long enough for the prefetcher, short enough to balance
constexpr int kTaskRows = 64;                 // of activations: they stay in the second-level cache
constexpr int kOutputsPerTask = 48;           // of a mapped weight
constexpr std::size_t kMostInputBytes = 2;    // per column of an input that is converted: bf16 and f16 are the largest

const PackedWeight* packed(const Product& product) { return static_cast<const PackedWeight*>(product.weight->loaded); }
ggml_type input_type(const Product& product) { return ggml_get_type_traits_cpu(product.weight->type)->vec_dot_type; }
const float* bias_of(const Product& product) { return product.bias == nullptr ? nullptr : floats(*product.bias); }

// Numbers the tasks of several products in a row: product p has count(p) of them.
template <class Count>
struct Tasks {
  std::span<const Product> products;
  Count count;

  int total() const {
    int sum = 0;
    for (const Product& product : products) sum += count(product);
    return sum;
  }
  // The product that a task belongs to, and its number there.
  std::pair<const Product*, int> find(int task) const {
    const Product* product = products.data();
    while (task >= count(*product)) task -= count(*product++);
    return {product, task};
  }
};
template <class Count>
Tasks(std::span<const Product>, Count) -> Tasks<Count>;

// Outputs [first, last) of one product, for every row: a weight row stays in the first-level cache while rows pass by.
void compute_outputs(const Product& product, const std::byte* input, std::size_t input_row, int rows, int first,
                     int last) {
  const auto dot = ggml_get_type_traits_cpu(product.weight->type)->vec_dot;
  const int columns = static_cast<int>(product.weight->columns);
  for (int output = first; output < last; ++output) {
    const float bias = product.bias == nullptr ? 0 : floats(*product.bias)[output];
    for (int row = 0; row < rows; ++row) {
      float sum = 0;
      dot(columns, &sum, 0, product.weight->row(output), 0, input + static_cast<std::size_t>(row) * input_row, 0, 1);
      float& out = product.out.row(row)[output];
      out = (product.add ? out : 0) + sum + bias;
    }
  }
}

}  // namespace

Result<std::byte*> Matmul::take(std::size_t wanted) {
  const auto bytes = static_cast<std::size_t>(round_up(static_cast<std::int64_t>(wanted), 64));
  if (slabs_.empty() || slabs_.back().bytes() - taken_ < bytes) {
    auto slab = OwnedBuffer::create(host_memory(), std::max(bytes, kSlab));
    if (!slab) return tl::unexpected(slab.error());
    slabs_.push_back(std::move(*slab));
    taken_ = 0;
  }
  std::byte* data = slabs_.back().data() + taken_;
  taken_ += bytes;
  return data;
}

Status Matmul::load(WeightView& weight) {
  const PackedFormat* format = packed_format(weight.type);
  if (kernels_ == nullptr || format == nullptr || weight.columns % format->block != 0) return {};
  auto shape = std::make_unique<PackedWeight>(packed_shape(weight, kernels_->lanes));
  const auto data = take(static_cast<std::size_t>(shape->panels()) * shape->panel_bytes());
  if (!data) return tl::unexpected(data.error());
  shape->data = *data;
  pack(weight, *shape, pool_);
  weight.loaded = shape.get();
  packed_.push_back(std::move(shape));
  return {};
}

void Matmul::reserve(int rows, int columns) {
  const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  codes_.reserve(count);
  blocks_.reserve(count / kInputBlock);
  quantised_.reserve(count * kMostInputBytes);
}

void Matmul::run(Activations in, int rows, std::span<const Product> products) {
  // Neighbours that want the same kind of input are one parallel region.
  const auto kind = [](const Product& product) {
    return packed(product) != nullptr ? GGML_TYPE_COUNT : input_type(product);
  };
  while (!products.empty()) {
    std::size_t count = 1;
    while (count < products.size() && kind(products[count]) == kind(products[0])) ++count;
    if (packed(products[0]) != nullptr) {
      run_packed(in, rows, products.first(count));
    } else {
      run_mapped(in, rows, products.first(count));
    }
    products = products.subspan(count);
  }
}

// Converts the input to what the products' weights are multiplied with.
PanelInput Matmul::convert(Activations in, int rows, std::span<const Product> products) {
  const auto any = [&](const auto& wants) {
    return std::any_of(products.begin(), products.end(), [&](const Product& p) { return wants(*packed(p)->format); });
  };
  if (any([](const PackedFormat& format) { return !format.is_float(); })) quantise(in, rows);
  const bool rounds = kernels_->round_for_bf16 && any([](const PackedFormat& f) { return f.type == GGML_TYPE_BF16; });
  const std::byte* rounded = rounds ? quantise(in, rows, GGML_TYPE_BF16) : nullptr;
  return {in.data, codes_.data(), blocks_.data(), reinterpret_cast<const ggml_bf16_t*>(rounded), in.columns};
}

void Matmul::quantise(Activations in, int rows) {
  const auto columns = static_cast<std::size_t>(in.columns), count = static_cast<std::size_t>(rows);
  if (codes_.size() < count * columns) codes_.resize(count * columns);
  if (blocks_.size() < count * columns / kInputBlock) blocks_.resize(count * columns / kInputBlock);
  pool_.run(rows, [&](int row, int) {
    const auto first = static_cast<std::size_t>(row) * columns;
    kernels_->quantise(in.row(row), in.columns, codes_.data() + first, blocks_.data() + first / kInputBlock);
  });
}

void Matmul::run_packed(Activations in, int rows, std::span<const Product> products) {
  const PanelInput input = convert(in, rows, products);
  const int row_blocks = (rows + kTaskRows - 1) / kTaskRows;
  const auto panels_per_task = [](const PackedWeight& weight) {
    return static_cast<std::int64_t>(std::max<std::size_t>(1, kTaskBytes / weight.panel_bytes()));
  };
  const Tasks tasks{products, [&](const Product& product) {
                      const std::int64_t per_task = panels_per_task(*packed(product));
                      return static_cast<int>((packed(product)->panels() + per_task - 1) / per_task) * row_blocks;
                    }};
  pool_.run(tasks.total(), [&](int task, int) {
    const auto [product, number] = tasks.find(task);
    const PackedWeight& weight = *packed(*product);
    const std::int64_t per_task = panels_per_task(weight), first = number / row_blocks * per_task;
    const int first_row = number % row_blocks * kTaskRows;
    kernels_->multiply(
        {&weight, input, bias_of(*product), product->out, product->add},
        {first, std::min(first + per_task, weight.panels()), first_row, std::min(first_row + kTaskRows, rows)});
  });
}

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

void Matmul::run_mapped(Activations in, int rows, std::span<const Product> products) {
  const ggml_type type = input_type(products[0]);
  const std::byte* input = quantise(in, rows, type);
  const std::size_t input_row = ggml_row_size(type, in.columns);
  const Tasks tasks{products, [](const Product& product) {
                      return (static_cast<int>(product.weight->rows) + kOutputsPerTask - 1) / kOutputsPerTask;
                    }};
  pool_.run(tasks.total(), [&](int task, int) {
    const auto [product, number] = tasks.find(task);
    const int first = number * kOutputsPerTask;
    compute_outputs(*product, input, input_row, rows, first,
                    std::min(first + kOutputsPerTask, static_cast<int>(product->weight->rows)));
  });
}

}  // namespace a2sf::cpu
