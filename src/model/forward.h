// One forward pass for every architecture, written against Backend.
#pragma once

#include <mutex>

#include "kernels/backend.h"
#include "model/weights.h"

namespace a2sf {

inline constexpr int kMaxStepRows = 4096;

// Runs steps of one model, one at a time (run() locks).
class Forward {
 public:
  Forward(const Weights& weights, Backend& backend) : weights_(weights), backend_(backend) {}
  // logits: [wanted.size()][vocabulary], host memory; `wanted` are rows of the step, ascending.
  Status run(const Step& step, std::span<const int> wanted, float* logits);

 private:
  Status make_room(int rows);
  void run_layer(int layer, int rows);

  const Weights& weights_;
  Backend& backend_;
  std::mutex mutex_;
  OwnedBuffer buffer_;
  int capacity_ = 0;  // rows the buffer holds
  Activations x_, normed_, q_, k_, v_, attended_, gate_, up_;
};

}  // namespace a2sf
