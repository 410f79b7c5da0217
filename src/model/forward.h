// One forward pass for every architecture, written against Backend.
#pragma once

#include <mutex>

#include "kernels/backend.h"
#include "model/weights.h"

namespace a2sf {

// Runs steps of one model, one at a time (run() locks).
class Forward {
 public:
  Forward(const Weights& weights, Backend& backend);
  // An error: the step could not start, and nothing has changed. outcomes[span] says why a sequence failed, if it did:
  // its logits and its cache are of no use, those of the others are.
  Status run(const Step& step, std::span<Status> outcomes);

 private:
  void embed();
  void run_layer(int layer);
  void attend(int layer);
  void feed_forward(const LayerWeights& w);
  void add_to_residual(Activations in, const WeightView& weight, const WeightView& bias, const Norm& output_norm,
                       const Norm& sum_norm);
  void predict();

  const Weights& weights_;
  Backend& backend_;
  std::mutex mutex_;
  std::vector<RopeTable> ropes_;
  Activations x_;  // the residual stream
  Activations q_, k_, v_, attended_;
  Activations gate_, up_, gated_;
  Activations last_;  // the wanted rows of x
  // Where a model has them: the embedding before it is projected, and what the head reads after the way back; what a
  // sublayer adds before its norm; a second residual stream for the norm of the sum.
  Activations embedded_, projected_, added_, normed_sum_;
};

}  // namespace a2sf
