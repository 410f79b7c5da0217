#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/cpu/attend.h"

namespace a2sf::cpu {

void RowInFlight::start(const RowKernels& kernels, const HeadCache& head, int group, float scale, const float* q,
                        int head_dim) {
  kernels_ = &kernels;
  head_ = &head;
  group_ = group;
  head_dim_ = head_dim;
  scale_ = scale;
  slots_ = round_up(head.used, kTile);
  stride_ = round_up(head.used, kChunk);
  const auto dim = static_cast<std::size_t>(head.dim), heads = static_cast<std::size_t>(group);
  const auto grow = [](std::vector<float>& buffer, std::size_t size) {
    if (buffer.size() < size) buffer.resize(size + size / 2);  // amortised: steady state allocates nothing
  };
  grow(q_, heads * dim);
  grow(inverse_, heads);
  grow(logits_, heads * static_cast<std::size_t>(stride_));
  grow(partial_, static_cast<std::size_t>(chunks()) * heads * dim);
  for (int g = 0; g < group; ++g) {
    std::copy_n(q + g * head_dim, head_dim, q_.data() + g * head.dim);
    std::fill(q_.data() + g * head.dim + head_dim, q_.data() + (g + 1) * head.dim, 0.0F);
  }
}

int RowInFlight::chunks() const { return static_cast<int>((slots_ + kChunk - 1) / kChunk); }

int RowInFlight::slots_of(int chunk) const {
  return static_cast<int>(std::min<std::int64_t>(kChunk, slots_ - static_cast<std::int64_t>(chunk) * kChunk));
}

void RowInFlight::compute_logits(int chunk) {
  for (int g = 0; g < group_; g += kMaxGroup) {
    kernels_->logits(head_->chunks[static_cast<std::size_t>(chunk)], head_->type, slots_of(chunk), head_->dim,
                     std::min(kMaxGroup, group_ - g), q_.data() + g * head_->dim, scale_,
                     logits_.data() + g * stride_ + chunk * kChunk, stride_);
  }
}

void RowInFlight::hide_free_slots(int used) {
  constexpr float hidden = -std::numeric_limits<float>::infinity();
  for (int g = 0; g < group_; ++g) {
    float* logits = logits_.data() + g * stride_;
    std::fill(logits + used, logits + slots_, hidden);
    for (const std::int32_t slot : head_->free) logits[slot] = hidden;
  }
}

void RowInFlight::normalise(float alpha, HeadCache* scored) {
  const int slots = static_cast<int>(slots_);
  for (int g = 0; g < group_; ++g) {
    float* x = logits_.data() + g * stride_;
    const float sum = kernels_->exponentials(x, slots, kernels_->maximum(x, slots));
    inverse_[static_cast<std::size_t>(g)] = 1 / sum;
    if (scored == nullptr) kernels_->multiply(x, 1 / sum, slots);
  }
  if (scored == nullptr) return;
  for (int c = 0; c < chunks(); ++c) {
    kernels_->score(logits_.data() + c * kChunk, stride_, group_, inverse_.data(), slots_of(c), alpha,
                    scored->chunks[static_cast<std::size_t>(c)].scores);
  }
}

void RowInFlight::keep_ideal(std::int64_t budget, std::int64_t position) {
  const auto sum_of = [&](int slot) {
    float sum = 0;
    for (int g = 0; g < group_; ++g) sum += logits_[static_cast<std::size_t>(g * stride_ + slot)];
    return sum;
  };
  const std::vector<int> hidden = hidden_from_ideal(*head_, position, budget, sum_of);
  if (hidden.empty()) return;
  for (int g = 0; g < group_; ++g) {
    float* p = logits_.data() + g * stride_;
    for (const int slot : hidden) p[slot] = 0;
    kernels_->multiply(p, 1 / std::accumulate(p, p + slots_, 0.0F), static_cast<int>(slots_));
  }
}

void RowInFlight::compute_values(int chunk) {
  for (int g = 0; g < group_; g += kMaxGroup) {
    kernels_->values(head_->chunks[static_cast<std::size_t>(chunk)], head_->type, slots_of(chunk), head_->dim,
                     std::min(kMaxGroup, group_ - g), logits_.data() + g * stride_ + chunk * kChunk, stride_,
                     partial_.data() + (static_cast<std::ptrdiff_t>(chunk) * group_ + g) * head_->dim);
  }
}

void RowInFlight::write(float* out) const {
  for (int g = 0; g < group_; ++g) {
    const float* partial = partial_.data() + g * head_->dim;
    std::copy_n(partial, head_dim_, out + g * head_dim_);
    for (int c = 1; c < chunks(); ++c) {
      partial += group_ * head_->dim;
      for (int i = 0; i < head_dim_; ++i) out[g * head_dim_ + i] += partial[i];
    }
  }
}

}  // namespace a2sf::cpu
