#include "kernels/cuda/weights.h"

#include <algorithm>
#include <cstring>

#include "kernels/random_weights.h"
#include "kernels/rows.h"

namespace a2sf::cuda {
namespace {

constexpr std::size_t kStaged = std::size_t{32} << 20;  // bytes that are put together on the host

}  // namespace

template <class Write>
Status DeviceWeights::upload(WeightView& weight, ggml_type type, Write write) {
  RowLayout layout;
  with_format(type, [&](auto format) { layout = layout_of<decltype(format)>(weight.columns); });
  const auto row_bytes = static_cast<std::size_t>(layout.bytes);
  auto buffer = OwnedBuffer::create(device_->memory(), row_bytes * static_cast<std::size_t>(weight.rows));
  if (!buffer) return tl::unexpected(buffer.error());
  const auto at_once = std::max<std::int64_t>(1, static_cast<std::int64_t>(kStaged / row_bytes));
  std::vector<std::uint8_t> staged(row_bytes * static_cast<std::size_t>(std::min(at_once, weight.rows)));
  std::vector<std::byte> blocks(ggml_row_size(type, weight.columns));
  for (std::int64_t first = 0; first < weight.rows; first += at_once) {
    const std::int64_t count = std::min(at_once, weight.rows - first);
    for (std::int64_t i = 0; i < count; ++i) {
      write(first + i, blocks.data());
      with_format(type, [&](auto format) {
        pack_row<decltype(format)>(reinterpret_cast<const std::uint8_t*>(blocks.data()), weight.columns, layout,
                                   staged.data() + static_cast<std::size_t>(i) * row_bytes);
      });
    }
    const cudaError_t code = cudaMemcpy(buffer->data() + static_cast<std::size_t>(first) * row_bytes, staged.data(),
                                        static_cast<std::size_t>(count) * row_bytes, cudaMemcpyHostToDevice);
    if (auto copied = checked(code, "loading weights"); !copied) return copied;
  }
  weights_.push_back({reinterpret_cast<const std::uint8_t*>(buffer->data()), type, weight.rows, weight.columns,
                      layout.bytes, layout.offsets});
  weight.loaded = &weights_.back();
  buffers_.push_back(std::move(*buffer));
  return {};
}

Status DeviceWeights::load(WeightView& weight) {
  if (const auto known = uploaded_.find(weight.data); known != uploaded_.end() && known->second->rows == weight.rows) {
    weight.loaded = known->second;
    return {};
  }
  Status loaded;
  if (has_format(weight.type)) {
    loaded = upload(weight, weight.type,
                    [&](std::int64_t row, std::byte* out) { std::memcpy(out, weight.row(row), weight.row_bytes()); });
  } else {
    std::vector<float> values(static_cast<std::size_t>(weight.columns));
    loaded = upload(weight, GGML_TYPE_F16, [&](std::int64_t row, std::byte* out) {
      dequantise_row(weight, row, values.data());
      ggml_fp32_to_fp16_row(values.data(), reinterpret_cast<ggml_fp16_t*>(out), weight.columns);
    });
  }
  if (loaded) uploaded_[weight.data] = static_cast<const DeviceWeight*>(weight.loaded);
  return loaded;
}

Status DeviceWeights::load_random(WeightView& weight, WeightRole role, std::uint64_t seed) {
  if (!has_format(weight.type))
    return fail(ErrorKind::unsupported,
                std::string("device 'cuda' makes no random weights of type ") + ggml_type_name(weight.type));
  const RandomRows rows(weight, role, seed);
  return upload(weight, weight.type, [&](std::int64_t row, std::byte* out) { rows.write(row, out); });
}

const float* DeviceWeights::floats(const WeightView* vector) {
  return vector == nullptr || !*vector ? nullptr : reinterpret_cast<const float*>(of(*vector).data);
}

DeviceNorm DeviceWeights::of(const Norm& norm) {
  return {floats(&norm.weight), floats(&norm.bias), norm.epsilon, norm.kind == NormKind::layer};
}

}  // namespace a2sf::cuda
