#include "model/forward.h"

#include <array>
#include <utility>

namespace a2sf {
namespace {

// What an operation takes as an argument that may be missing.
template <class T>
const T* optional(const T& tensor) {
  return tensor ? &tensor : nullptr;
}

}  // namespace

Forward::Forward(const Weights& weights, Backend& backend) : weights_(weights), backend_(backend) {
  const Architecture& a = weights.architecture;
  for (const Rope& rope : a.ropes) ropes_.push_back({rope.angles, rope.magnitude, rope.kind == RopeKind::interleaved});
  const auto make = [&](int columns) { return backend.make_activations(columns, StepRows::all); };
  x_ = make(a.embedding);
  q_ = make(a.heads * a.head_dim);
  k_ = make(a.kv_heads * a.head_dim);
  v_ = make(a.kv_heads * a.head_dim);
  attended_ = make(a.heads * a.head_dim);
  gate_ = make(a.feed_forward);
  up_ = make(a.feed_forward);
  gated_ = make(a.feed_forward);
  last_ = backend.make_activations(a.embedding, StepRows::wanted);
  if (weights.project_in) {
    const int width = static_cast<int>(weights.project_in.columns);
    embedded_ = make(width);
    projected_ = backend.make_activations(width, StepRows::wanted);
  }
  const LayerWeights& first = weights.layers.front();
  if (first.attention_output_norm) added_ = make(a.embedding);
  if (first.attention_sum_norm) normed_sum_ = make(a.embedding);
}

void Forward::embed() {
  const Architecture& a = weights_.architecture;
  const bool projects = static_cast<bool>(weights_.project_in);
  backend_.embed(weights_.embedding, a.embedding_scale, projects ? embedded_ : x_);
  if (projects) backend_.matmul({embedded_, nullptr, std::array{Product{&weights_.project_in, nullptr, x_}}});
  if (a.learned_positions) backend_.add_positions(weights_.positions, a.position_offset, x_);
}

void Forward::attend(int layer) {
  const Architecture& a = weights_.architecture;
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  backend_.matmul({x_, optional(w.attention_norm),
                   std::array{Product{&w.q, optional(w.q_bias), q_}, Product{&w.k, optional(w.k_bias), k_},
                              Product{&w.v, optional(w.v_bias), v_}}});
  backend_.attend({layer, a.heads, a.kv_heads, a.head_dim, a.windows[static_cast<std::size_t>(layer)],
                   a.attention_scale, a.rope_of(layer), q_, k_, v_, attended_, optional(w.q_norm), optional(w.k_norm),
                   x_});
}

// But for its last product.
void Forward::feed_forward(const LayerWeights& w) {
  const Norm* norm = optional(w.feed_forward_norm);
  const GateArgs gate{weights_.architecture.activation, gated_};
  const Product up{&w.up, optional(w.up_bias), up_};
  if (w.gate) {
    backend_.matmul({x_, norm, std::array{Product{&w.gate, nullptr, gate_}, up}, gate});
  } else {
    backend_.matmul({x_, norm, std::array{up}, gate});
  }
}

// x += weight x in, with the norms that a model has there.
void Forward::add_to_residual(Activations in, const WeightView& weight, const WeightView& bias, const Norm& output_norm,
                              const Norm& sum_norm) {
  if (output_norm) {
    backend_.matmul({in, nullptr, std::array{Product{&weight, optional(bias), added_}}});
    backend_.add(added_, &output_norm, x_);
  } else {
    backend_.matmul({in, nullptr, std::array{Product{&weight, optional(bias), x_, true}}});
  }
  if (!sum_norm) return;
  backend_.norm(x_, sum_norm, normed_sum_);
  std::swap(x_, normed_sum_);
}

void Forward::run_layer(int layer) {
  const bool parallel = weights_.architecture.parallel_residual;
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  attend(layer);
  if (parallel) feed_forward(w);  // of the same x
  add_to_residual(attended_, w.output, w.output_bias, w.attention_output_norm, w.attention_sum_norm);
  if (!parallel) feed_forward(w);
  add_to_residual(gated_, w.down, w.down_bias, w.feed_forward_output_norm, w.feed_forward_sum_norm);
}

void Forward::predict() {
  const float softcap = weights_.architecture.logit_softcap;
  const Norm* norm = optional(weights_.output_norm);
  backend_.gather(x_, last_);
  if (!weights_.project_out) return backend_.predict({last_, norm, &weights_.head, softcap});
  backend_.matmul({last_, norm, std::array{Product{&weights_.project_out, nullptr, projected_}}});
  backend_.predict({projected_, nullptr, &weights_.head, softcap});
}

Status Forward::run(const Step& step, std::span<Status> outcomes) {
  const std::scoped_lock lock(mutex_);
  const Architecture& a = weights_.architecture;
  if (auto begun = backend_.begin(step, {ropes_, a.heads, a.vocabulary}); !begun) return begun;
  embed();
  for (int layer = 0; layer < a.layers; ++layer) run_layer(layer);
  if (!step.wanted.empty()) predict();
  backend_.end(outcomes);
  return {};
}

}  // namespace a2sf
