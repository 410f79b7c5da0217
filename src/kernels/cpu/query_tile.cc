#include "kernels/cpu/query_tile.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

namespace a2sf::cpu {
namespace {

template <class T>
void prefetch_all(const T* data, int count) {
  constexpr int kPerLine = 64 / sizeof(T);
  for (int i = 0; i < count; i += kPerLine) __builtin_prefetch(data + i);
}

// By half more than is needed, so that a growing cache rarely allocates.
void grow(std::vector<float>& buffer, std::int64_t size) {
  const auto wanted = static_cast<std::size_t>(size);
  if (buffer.size() < wanted) buffer.resize(wanted + wanted / 2);
}

}  // namespace

void QueryTile::reserve(std::int64_t queries, std::int64_t slots, std::int64_t dim, bool keep) {
  const std::int64_t chunks = (slots + kChunk - 1) / kChunk;
  grow(queries_, queries * dim);
  grow(key_, dim);
  grow(numerators_, (keep ? chunks : 1) * queries * kChunk);
  grow(values_, chunks * queries * dim);
  for (std::vector<float>* buffer : {&largest_, &sums_, &factors_}) grow(*buffer, chunks * queries);
  victims_.reserve(static_cast<std::size_t>(chunks * kChunk));
}

void QueryTile::start(const RowKernels& kernels, HeadCache& head, const QueryGroup& group, std::int64_t first,
                      int count, int slots, bool keep) {
  kernels_ = &kernels;
  head_ = &head;
  group_ = group;
  first_ = first;
  count_ = count;
  slots_ = static_cast<int>(round_up(slots, kTile));
  keep_ = keep;
  assert(values_.size() >= static_cast<std::size_t>(partitions() * queries() * head.dim()));
  assert(numerators_.size() >= static_cast<std::size_t>((keep ? partitions() : 1) * queries() * kChunk));
  for (int i = 0; i < queries() && group.head_dim < head.dim(); ++i) {
    std::fill(queries_.data() + i * head.dim() + group.head_dim, queries_.data() + (i + 1) * head.dim(), 0.0F);
  }
}

int QueryTile::slots_of(int chunk) const { return std::min(kChunk, slots_ - chunk * kChunk); }

void QueryTile::compute_numerators(int c) {
  const int slots = slots_of(c), dim = head_->dim();
  const ChunkMatrix keys{chunk(c).keys,  head_->type(), dim, slots, kTile, static_cast<std::ptrdiff_t>(dim) * kTile,
                         chunk(c).values};
  float* const x = numerators(c);
  prefetch_all(chunk(c).scores, slots);
  prefetch_all(chunk(c).positions, slots);
  kernels_->multiply(queries_.data(), dim, static_cast<int>(queries()), keys,
                     group_.scale * std::numbers::log2e_v<float>, x, kChunk);
  std::int32_t least, most;
  kernels_->bounds(chunk(c).positions, slots, least, most);
  for (int i = 0; i < queries(); ++i) {
    const auto now = static_cast<std::int32_t>(first_ + i / group_.heads);
    const std::int32_t first = group_.window == 0 ? 0 : std::max(0, now - group_.window + 1);
    if (least < first || most > now) kernels_->mask(x + i * kChunk, chunk(c).positions, slots, first, now);
    const auto at = static_cast<std::size_t>(c * queries() + i);
    sums_[at] = kernels_->exponentials(x + i * kChunk, slots, largest_[at]);
  }
}

void QueryTile::weigh_values(int c, const std::byte* next) {
  const int slots = slots_of(c), dim = head_->dim();
  const ChunkMatrix values{chunk(c).values, head_->type(), slots, dim, dim, kTile, next};
  kernels_->multiply(numerators(c), kChunk, static_cast<int>(queries()), values, 1,
                     values_.data() + c * queries() * dim, dim);
}

int QueryTile::normalise() {
  const auto count = static_cast<std::size_t>(queries()), size = count * static_cast<std::size_t>(partitions());
  for (std::size_t query = 0; query < count; ++query) {
    float largest = largest_[query], sum = 0;
    for (std::size_t at = query; at < size; at += count) largest = std::max(largest, largest_[at]);
    for (std::size_t at = query; at < size; at += count) {
      factors_[at] = largest_[at] == largest ? 1 : std::exp2(largest_[at] - largest);
      sum += factors_[at] * sums_[at];
    }
    for (std::size_t at = query; at < size; at += count) factors_[at] /= sum;
    if (!(sum > 0 && std::isfinite(sum))) return static_cast<int>(query) / group_.heads;
  }
  return -1;
}

int QueryTile::run(const std::byte* next) {
  for (int c = 0; c < partitions(); ++c) {
    compute_numerators(c);
    weigh_values(c, c + 1 < partitions() ? chunk(c + 1).keys : next);
  }
  return normalise();
}

int QueryTile::run_ideal(std::int64_t budget) {
  for (int c = 0; c < partitions(); ++c) compute_numerators(c);
  if (const int row = normalise(); row >= 0) return row;
  for (int row = 0; row < count_; ++row) hide_from_ideal(row, budget);
  for (int c = 0; c < partitions(); ++c) weigh_values(c, nullptr);
  return normalise();
}

float QueryTile::log_sum(int row, int head) const {
  const auto query = static_cast<std::size_t>(query_index(row, head)), count = static_cast<std::size_t>(queries());
  std::size_t largest = query;  // of the partition whose numerators lost nothing to rounding
  for (std::size_t at = query; at < count * static_cast<std::size_t>(partitions()); at += count) {
    if (largest_[at] > largest_[largest]) largest = at;
  }
  return largest_[largest] - std::log2(factors_[largest]);
}

float QueryTile::group_probability(int row, int slot) const {
  const int c = slot / kChunk;
  float sum = 0;
  for (int g = 0; g < group_.heads; ++g) {
    const std::ptrdiff_t i = query_index(row, g);
    sum += numerators(c)[i * kChunk + slot % kChunk] * factors_[static_cast<std::size_t>(c * queries() + i)];
  }
  return sum;
}

float QueryTile::addition(int row, int slot, bool raised) const {
  const int c = slot / kChunk;
  float sum = 0;
  for (int g = 0; g < group_.heads; ++g) {
    const std::ptrdiff_t i = query_index(row, g);
    const float p = numerators(c)[i * kChunk + slot % kChunk] * factors_[static_cast<std::size_t>(c * queries() + i)];
    sum += raised ? p * std::sqrt(p) : p;
  }
  return sum;
}

void QueryTile::hide_from_ideal(int row, std::int64_t budget) {
  const auto sum_of = [&](int slot) { return group_probability(row, slot); };
  std::vector<int>& hidden = victims_;
  hidden_from_ideal(*head_, first_ + row, budget, sum_of, hidden);
  if (hidden.empty()) return;
  for (int g = 0; g < group_.heads; ++g) {
    const std::ptrdiff_t i = query_index(row, g);
    for (const int slot : hidden) numerators(slot / kChunk)[i * kChunk + slot % kChunk] = 0;
    for (int c = 0; c < partitions(); ++c) {
      const float* x = numerators(c) + i * kChunk;
      sums_[static_cast<std::size_t>(c * queries() + i)] = std::accumulate(x, x + slots_of(c), 0.0F);
    }
  }
}

void QueryTile::write(int row, float* out) const {
  for (int g = 0; g < group_.heads; ++g) {
    const std::ptrdiff_t i = query_index(row, g);
    kernels_->add_up(values_.data() + i * head_->dim(), queries() * head_->dim(), factors_.data() + i, queries(),
                     partitions(), group_.head_dim, out + g * group_.head_dim);
  }
}

float QueryTile::score(int row, const ScoreUpdate& update) {
  float lowest = std::numeric_limits<float>::infinity();
  for (int c = 0; c < partitions(); ++c) {
    const std::ptrdiff_t i = query_index(row, 0);
    lowest = std::min(lowest, kernels_->score(numerators(c) + i * kChunk, kChunk, group_.heads,
                                              factors_.data() + c * queries() + i, chunk(c), slots_of(c), update));
  }
  return lowest;
}

void QueryTile::read_probabilities(int row, int head, std::span<float> out) const {
  const std::ptrdiff_t i = query_index(row, head);
  for (int slot = 0; slot < static_cast<int>(out.size()); ++slot) {
    const int c = slot / kChunk;
    out[static_cast<std::size_t>(slot)] =
        numerators(c)[i * kChunk + slot % kChunk] * factors_[static_cast<std::size_t>(c * queries() + i)];
  }
}

}  // namespace a2sf::cpu
