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
  Forward(const Weights& weights, Backend& backend);
  // logits: [wanted.size()][vocabulary], host memory; `wanted` are rows of the step, ascending. An error: the step
  // could not start, and nothing has changed. outcomes[span] says why a sequence failed, if it did: its logits and its
  // cache are of no use, those of the others are.
  Status run(const Step& step, std::span<const int> wanted, float* logits, std::span<Status> outcomes);

 private:
  Status make_room(int rows);
  int widest() const;
  void embed(int rows);
  void run_layer(int layer, int rows);
  void attend(int layer, Activations input, int rows);
  void feed_forward(const LayerWeights& w, Activations input, int rows);
  Activations normalised(const Norm& norm, int rows);
  void add_to_residual(Activations in, const WeightView& weight, const WeightView& bias, const Norm& output_norm,
                       const Norm& sum_norm, int rows);
  void predict(std::span<const int> wanted, float* logits);

  const Weights& weights_;
  Backend& backend_;
  std::mutex mutex_;
  OwnedBuffer buffer_;
  int capacity_ = 0;  // rows the buffer holds
  std::vector<RopeTable> ropes_;
  Activations embedded_, x_, normed_, q_, k_, v_, attended_, gate_, up_;
};

}  // namespace a2sf
