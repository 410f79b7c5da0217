#include "model/forward.h"

#include <array>
#include <cmath>

namespace a2sf {
namespace {

RopeTable rope_of(const Architecture& a) {
  return {a.rope_angles, a.rope_magnitude, a.rope_kind == RopeKind::interleaved};
}

const WeightView* optional(const WeightView& weight) { return weight ? &weight : nullptr; }

}  // namespace

// All activations of a step in one buffer, which grows with the largest step seen.
Status Forward::make_room(int rows) {
  if (rows <= capacity_) return {};
  const Architecture& a = weights_.architecture;
  const int q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  const std::array<std::pair<Activations*, int>, 8> parts = {{{&x_, a.embedding},
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

void Forward::run_layer(int layer, int rows) {
  const Architecture& a = weights_.architecture;
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  backend_.norm(x_, w.attention_norm, a.norm_epsilon, rows, normed_);
  backend_.matmul(normed_, rows,
                  std::array{Product{&w.q, optional(w.q_bias), q_}, Product{&w.k, optional(w.k_bias), k_},
                             Product{&w.v, optional(w.v_bias), v_}});
  const float scale = 1 / std::sqrt(static_cast<float>(a.head_dim));
  backend_.attend({layer, a.heads, a.kv_heads, a.head_dim, 0, scale, rope_of(a), q_, k_, v_, attended_});
  backend_.matmul(attended_, rows, std::array{Product{&w.output, optional(w.output_bias), x_, true}});

  backend_.norm(x_, w.feed_forward_norm, a.norm_epsilon, rows, normed_);
  backend_.matmul(normed_, rows, std::array{Product{&w.gate, nullptr, gate_}, Product{&w.up, nullptr, up_}});
  backend_.activate(gate_, up_);
  backend_.matmul(gate_, rows, std::array{Product{&w.down, nullptr, x_, true}});
}

Status Forward::run(const Step& step, std::span<const int> wanted, float* logits) {
  const std::scoped_lock lock(mutex_);
  const int rows = static_cast<int>(step.tokens.size());
  if (auto room = make_room(rows); !room) return room;
  if (auto begun = backend_.begin(step, rope_of(weights_.architecture)); !begun) return begun;
  backend_.embed(weights_.embedding, x_);
  for (int layer = 0; layer < weights_.architecture.layers; ++layer) run_layer(layer, rows);
  if (!wanted.empty()) {
    const int count = static_cast<int>(wanted.size());
    backend_.gather(x_, wanted, x_);
    backend_.norm(x_, weights_.output_norm, weights_.architecture.norm_epsilon, count, normed_);
    backend_.matmul(normed_, count,
                    std::array{Product{&weights_.head, nullptr, {logits, weights_.architecture.vocabulary}}});
  }
  return backend_.end();
}

}  // namespace a2sf
