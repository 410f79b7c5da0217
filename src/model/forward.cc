#include "model/forward.h"

#include <algorithm>
#include <array>

namespace a2sf {
namespace {

const WeightView* optional(const WeightView& weight) { return weight ? &weight : nullptr; }

// The heads of every row as rows of their own.
Activations heads_of(Activations rows, int head_dim) { return {rows.data, head_dim}; }

}  // namespace

Forward::Forward(const Weights& weights, Backend& backend) : weights_(weights), backend_(backend) {
  for (const Rope& rope : weights.architecture.ropes)
    ropes_.push_back({rope.angles, rope.magnitude, rope.kind == RopeKind::interleaved});
}

// All activations of a step in one buffer, which grows with the largest step seen.
Status Forward::make_room(int rows) {
  if (rows <= capacity_) return {};
  const Architecture& a = weights_.architecture;
  const int q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  const int embedded = static_cast<int>(weights_.project_in.columns);
  const std::array<std::pair<Activations*, int>, 9> parts = {{{&embedded_, embedded},
                                                              {&x_, a.embedding},
                                                              {&normed_, a.embedding},
                                                              {&q_, q},
                                                              {&k_, kv},
                                                              {&v_, kv},
                                                              {&attended_, q},
                                                              {&gate_, a.feed_forward},
                                                              {&up_, a.feed_forward}}};
  std::size_t columns = 0;
  for (const auto& [part, width] : parts) columns += static_cast<std::size_t>(round_up(width, kTile));
  auto buffer = OwnedBuffer::create(backend_.memory(), columns * static_cast<std::size_t>(rows) * sizeof(float));
  if (!buffer) return tl::unexpected(buffer.error());
  buffer_ = std::move(*buffer);
  auto* next = reinterpret_cast<float*>(buffer_.data());
  for (const auto& [part, width] : parts) {
    *part = {next, width};
    next += round_up(width, kTile) * rows;
  }
  capacity_ = rows;
  return {};
}

// Columns of the widest input of a product.
int Forward::widest() const { return std::max({embedded_.columns, x_.columns, attended_.columns, gate_.columns}); }

void Forward::embed(int rows) {
  const Architecture& a = weights_.architecture;
  const bool projects = static_cast<bool>(weights_.project_in);
  backend_.embed(weights_.embedding, a.embedding_scale, projects ? embedded_ : x_);
  if (projects) backend_.matmul(embedded_, rows, std::array{Product{&weights_.project_in, nullptr, x_}});
  if (a.learned_positions) backend_.add_positions(weights_.positions, a.position_offset, x_);
}

// What a sublayer reads.
Activations Forward::normalised(const Norm& norm, int rows) {
  if (!norm) return x_;
  backend_.norm(x_, norm, rows, normed_);
  return normed_;
}

void Forward::attend(int layer, Activations input, int rows) {
  const Architecture& a = weights_.architecture;
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  backend_.matmul(input, rows,
                  std::array{Product{&w.q, optional(w.q_bias), q_}, Product{&w.k, optional(w.k_bias), k_},
                             Product{&w.v, optional(w.v_bias), v_}});
  const Activations q_heads = heads_of(q_, a.head_dim), k_heads = heads_of(k_, a.head_dim);
  if (w.q_norm) backend_.norm(q_heads, w.q_norm, rows * a.heads, q_heads);
  if (w.k_norm) backend_.norm(k_heads, w.k_norm, rows * a.kv_heads, k_heads);
  backend_.attend({layer, a.heads, a.kv_heads, a.head_dim, a.windows[static_cast<std::size_t>(layer)],
                   a.attention_scale, a.rope_of(layer), q_, k_, v_, attended_});
}

// Leaves what `down` takes in gate_.
void Forward::feed_forward(const LayerWeights& w, Activations input, int rows) {
  const Activation activation = weights_.architecture.activation;
  if (w.gate) {
    backend_.matmul(input, rows, std::array{Product{&w.gate, nullptr, gate_}, Product{&w.up, nullptr, up_}});
    backend_.activate(activation, gate_, up_);
  } else {
    backend_.matmul(input, rows, std::array{Product{&w.up, optional(w.up_bias), gate_}});
    backend_.activate(activation, gate_, {});
  }
}

// x += weight x in, with the norms that a model has there.
void Forward::add_to_residual(Activations in, const WeightView& weight, const WeightView& bias, const Norm& output_norm,
                              const Norm& sum_norm, int rows) {
  if (output_norm) {
    backend_.matmul(in, rows, std::array{Product{&weight, optional(bias), normed_}});
    backend_.norm(normed_, output_norm, rows, normed_);
    backend_.add(normed_, rows, x_);
  } else {
    backend_.matmul(in, rows, std::array{Product{&weight, optional(bias), x_, true}});
  }
  if (sum_norm) backend_.norm(x_, sum_norm, rows, x_);
}

void Forward::run_layer(int layer, int rows) {
  const bool parallel = weights_.architecture.parallel_residual;
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  attend(layer, normalised(w.attention_norm, rows), rows);
  if (parallel) feed_forward(w, normalised(w.feed_forward_norm, rows), rows);
  add_to_residual(attended_, w.output, w.output_bias, w.attention_output_norm, w.attention_sum_norm, rows);
  if (!parallel) feed_forward(w, normalised(w.feed_forward_norm, rows), rows);
  add_to_residual(gate_, w.down, w.down_bias, w.feed_forward_output_norm, w.feed_forward_sum_norm, rows);
}

void Forward::predict(std::span<const int> wanted, float* logits) {
  const int rows = static_cast<int>(wanted.size());
  const Activations out{logits, weights_.architecture.vocabulary};
  backend_.gather(x_, wanted, x_);
  Activations last = normalised(weights_.output_norm, rows);
  if (weights_.project_out) {
    backend_.matmul(last, rows, std::array{Product{&weights_.project_out, nullptr, embedded_}});
    last = embedded_;
  }
  backend_.matmul(last, rows, std::array{Product{&weights_.head, nullptr, out}});
  backend_.check_logits(out, wanted);
  if (weights_.architecture.logit_softcap > 0) backend_.softcap(out, rows, weights_.architecture.logit_softcap);
}

Status Forward::run(const Step& step, std::span<const int> wanted, float* logits, std::span<Status> outcomes) {
  const std::scoped_lock lock(mutex_);
  const int rows = static_cast<int>(step.tokens.size());
  if (auto room = make_room(rows); !room) return room;
  if (auto begun = backend_.begin(step, {ropes_, weights_.architecture.heads, widest()}); !begun) return begun;
  embed(rows);
  for (int layer = 0; layer < weights_.architecture.layers; ++layer) run_layer(layer, rows);
  if (!wanted.empty()) predict(wanted, logits);
  backend_.end(outcomes);
  return {};
}

}  // namespace a2sf
