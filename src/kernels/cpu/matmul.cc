#include "kernels/cpu/matmul.h"

#include <ggml-cpu.h>

#include <algorithm>

#include "kernels/rows.h"

namespace a2sf::cpu {
namespace {

constexpr std::size_t kRandomBytes = 1 << 20;  // of random rows that are packed at once
constexpr std::size_t kTaskBytes = 32 << 10;   // of weights: long enough to prefetch, short enough to balance the load
constexpr int kTaskRows = 64;                  // of activations: they stay in the L2 cache
constexpr int kOutputsPerTask = 48;            // of a mapped weight
constexpr std::size_t kMostInputBytes = 2;     // per column of an input that is converted: bf16 and f16 are the largest

const PackedWeight* packed(const HostProduct& product) {
  return static_cast<const PackedWeight*>(product.weight->loaded);
}
ggml_type input_type(const HostProduct& product) {
  return ggml_get_type_traits_cpu(product.weight->type)->vec_dot_type;
}
const float* bias_of(const HostProduct& product) { return product.bias == nullptr ? nullptr : floats(*product.bias); }

// Numbers the tasks of several products in a row: product p has count(p) of them.
template <class Count>
struct Tasks {
  std::span<const HostProduct> products;
  Count count;

  int total() const {
    int sum = 0;
    for (const HostProduct& product : products) sum += count(product);
    return sum;
  }
  // The product that a task belongs to, and its number there.
  std::pair<const HostProduct*, int> find(int task) const {
    const HostProduct* product = products.data();
    while (task >= count(*product)) task -= count(*product++);
    return {product, task};
  }
};
template <class Count>
Tasks(std::span<const HostProduct>, Count) -> Tasks<Count>;

// Outputs [first, last) of one product, for every row of activations: a row of weights is read from memory only once.
void compute_outputs(const HostProduct& product, const std::byte* input, std::size_t input_row, int rows, int first,
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

bool Matmul::can_pack(const WeightView& weight) const {
  const PackedFormat* format = packed_format(weight.type);
  return kernels_ != nullptr && format != nullptr && weight.columns % format->block == 0;
}

Result<PackedWeight*> Matmul::add_packed(WeightView& weight) {
  auto shape = std::make_unique<PackedWeight>(packed_shape(weight, kernels_->lanes));
  const auto data = memory_.take(static_cast<std::size_t>(shape->panels()) * shape->panel_bytes());
  if (!data) return tl::unexpected(data.error());
  shape->data = *data;
  packed_.push_back(std::move(shape));
  weight.loaded = packed_.back().get();
  return packed_.back().get();
}

Status Matmul::load(WeightView& weight) {
  if (!can_pack(weight)) return {};
  const auto packed = add_packed(weight);
  if (!packed) return tl::unexpected(packed.error());
  pack(weight, **packed, pool_);
  return {};
}

Status Matmul::load_random(WeightView& weight, const RandomRows& rows) {
  if (!can_pack(weight)) return make_random(weight, rows, memory_);
  const auto packed = add_packed(weight);
  if (!packed) return tl::unexpected(packed.error());
  const std::size_t row_bytes = weight.row_bytes();
  const auto lanes = static_cast<std::int64_t>(kernels_->lanes);
  const std::int64_t panels_at_once =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(kRandomBytes / row_bytes) / lanes);
  std::vector<std::byte> unpacked(static_cast<std::size_t>(panels_at_once * lanes) * row_bytes);
  for (std::int64_t panel = 0; panel < (*packed)->panels(); panel += panels_at_once) {
    const std::int64_t first = panel * lanes, count = std::min(panels_at_once * lanes, weight.rows - first);
    for (std::int64_t row = 0; row < count; ++row)
      rows.write(first + row, unpacked.data() + static_cast<std::size_t>(row) * row_bytes);
    PackedWeight part = **packed;
    part.rows = count;
    part.data += static_cast<std::size_t>(panel) * part.panel_bytes();
    pack({weight.type, count, weight.columns, unpacked.data()}, part, pool_);
  }
  return {};
}

void Matmul::reserve(int rows, int columns) {
  const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  codes_.reserve(count);
  blocks_.reserve(count / kInputBlock);
  quantised_.reserve(count * kMostInputBytes);
}

void Matmul::run(HostRows in, int rows, std::span<const HostProduct> products) {
  // Neighbouring products that take the same kind of input are one parallel region.
  const auto kind = [](const HostProduct& product) {
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
PanelInput Matmul::convert(HostRows in, int rows, std::span<const HostProduct> products) {
  const auto any = [&](const auto& wants) {
    return std::any_of(products.begin(), products.end(),
                       [&](const HostProduct& p) { return wants(*packed(p)->format); });
  };
  if (any([](const PackedFormat& format) { return !format.is_float(); })) quantise(in, rows);
  const bool rounds = kernels_->round_for_bf16 && any([](const PackedFormat& f) { return f.type == GGML_TYPE_BF16; });
  const std::byte* rounded = rounds ? quantise(in, rows, GGML_TYPE_BF16) : nullptr;
  return {in.data, codes_.data(), blocks_.data(), reinterpret_cast<const ggml_bf16_t*>(rounded), in.columns};
}

void Matmul::quantise(HostRows in, int rows) {
  const auto columns = static_cast<std::size_t>(in.columns), count = static_cast<std::size_t>(rows);
  if (codes_.size() < count * columns) codes_.resize(count * columns);
  if (blocks_.size() < count * columns / kInputBlock) blocks_.resize(count * columns / kInputBlock);
  pool_.run(rows, [&](int row, int) {
    const auto first = static_cast<std::size_t>(row) * columns;
    kernels_->quantise(in.row(row), in.columns, codes_.data() + first, blocks_.data() + first / kInputBlock);
  });
}

void Matmul::run_packed(HostRows in, int rows, std::span<const HostProduct> products) {
  const PanelInput input = convert(in, rows, products);
  const int row_blocks = (rows + kTaskRows - 1) / kTaskRows;
  const auto panels_per_task = [](const PackedWeight& weight) {
    return static_cast<std::int64_t>(std::max<std::size_t>(1, kTaskBytes / weight.panel_bytes()));
  };
  const Tasks tasks{products, [&](const HostProduct& product) {
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

const std::byte* Matmul::quantise(HostRows in, int rows, ggml_type type) {
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

void Matmul::run_mapped(HostRows in, int rows, std::span<const HostProduct> products) {
  const ggml_type type = input_type(products[0]);
  const std::byte* input = quantise(in, rows, type);
  const std::size_t input_row = ggml_row_size(type, in.columns);
  const Tasks tasks{products, [](const HostProduct& product) {
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
