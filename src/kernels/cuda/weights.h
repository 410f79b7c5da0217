// The weights of a model in the GPU's memory.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/rows.h"

namespace a2sf::cuda {

// Formats that kernels read keep their bits, in the order of formats.h; others become f16.
class DeviceWeights {
 public:
  explicit DeviceWeights(Device& device) : device_(&device) {}
  // Uploads it, and notes that in `loaded`. What two roles share is there once.
  Status load(WeightView& weight);
  Status load_random(WeightView& weight, WeightRole role, std::uint64_t seed);

  static DeviceWeight of(const WeightView& weight) { return *static_cast<const DeviceWeight*>(weight.loaded); }
  static DeviceNorm of(const Norm& norm);
  static const float* floats(const WeightView* vector);  // nullptr: none

 private:
  // Calls write(row, blocks) for each row, many rows to a copy.
  template <class Write>
  Status upload(WeightView& weight, ggml_type type, Write write);

  Device* device_;
  std::deque<DeviceWeight> weights_;
  std::vector<OwnedBuffer> buffers_;
  std::map<const std::byte*, const DeviceWeight*> uploaded_;  // by what is mapped
};

}  // namespace a2sf::cuda
