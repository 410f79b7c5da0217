// From samples to the layer of a learned model. Both kinds predict what a token adds to the outputs to come: the
// logarithm of the attention that it draws times the L1 norm of its value, as VATP (arXiv 2406.12335) weighs past
// attention. Only tokens of one KV head and row compete, so what their logarithms have in common counts for nothing.
#pragma once

#include "policy/learned_model.h"
#include "tune/attention_samples.h"

#include <functional>

namespace a2sf {

// Ridge regression on features and targets less their means over the decision.
LearnedLayer train_linear(const AttentionSamples& samples);

// A hidden layer of 16 rectified units, by Adam (Kingma and Ba, arXiv 1412.6980). `keep_going` is told the share of
// the work that is done; false ends it early.
LearnedLayer train_mlp(const AttentionSamples& samples, const std::function<bool(double)>& keep_going = {});

}  // namespace a2sf
