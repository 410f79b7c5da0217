// A KV head of tokens 0, 1, ... as a hook sees it, made of given queries, keys and values instead of a model.
#pragma once

#include <a2sf/hook.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace a2sf::test {

using Vectors = std::vector<std::vector<float>>;  // [token][head dim]

class FakeHead final : public HookHead {
 public:
  FakeHead(std::vector<Vectors> queries, Vectors keys, Vectors values)
      : queries_(std::move(queries)), keys_(std::move(keys)), values_(std::move(values)) {
    const auto tokens = keys_.size();
    positions_.resize(tokens);
    std::iota(positions_.begin(), positions_.end(), 0);
    numbers_.resize(tokens);
    slots_ = static_cast<int>(tokens);
    held_ = std::ssize(keys_);
    group_ = static_cast<int>(queries_.size());
    head_dim_ = static_cast<int>(keys_.front().size());
    scale_ = 1 / std::sqrt(static_cast<float>(head_dim_));
    scores_.resize(tokens);
    for (int g = 0; g < group_; ++g) {
      const auto given = probabilities(0, g);
      for (std::size_t i = 0; i < tokens; ++i) scores_[i] += given[i];
    }
    runs_ = {{positions_.data(), scores_.data(), numbers_.data(), slots_}};
  }

  void bound(std::int64_t budget, std::int64_t capacity, std::int64_t sink, std::int64_t recent) {
    budget_ = budget;
    capacity_ = capacity;
    first_ = sink;
    last_ = held_ - 1 - recent;
  }
  std::vector<int> kept() const {
    std::vector<int> kept;
    for (const std::int32_t position : positions_) {
      if (position >= 0) kept.push_back(position);
    }
    return kept;
  }

  std::span<const float> query(int back, int query_head) const override {
    const Vectors& queries = queries_[static_cast<std::size_t>(query_head)];
    if (back >= std::ssize(queries)) return {};
    return queries[queries.size() - 1 - static_cast<std::size_t>(back)];
  }
  std::span<const float> probabilities(int back, int query_head) const override {
    const auto q = query(back, query_head);
    if (q.empty()) return {};
    std::vector<double> x(keys_.size());
    double sum = 0;
    for (std::size_t i = 0; i + static_cast<std::size_t>(back) < keys_.size(); ++i) {
      if (positions_[i] < 0) continue;
      sum += x[i] = std::exp(std::inner_product(q.begin(), q.end(), keys_[i].begin(), 0.0) / std::sqrt(head_dim_));
    }
    probabilities_.clear();
    for (const double numerator : x) probabilities_.push_back(static_cast<float>(numerator / sum));
    return probabilities_;
  }
  void read_key(int slot, std::span<float> key) const override {
    std::copy(keys_[at(slot)].begin(), keys_[at(slot)].end(), key.begin());
  }
  void read_value(int slot, std::span<float> value) const override {
    std::copy(values_[at(slot)].begin(), values_[at(slot)].end(), value.begin());
  }
  void evict(int slot) override {
    positions_[at(slot)] = -1;
    --held_;
  }
  int restore(std::int32_t, std::span<const float>, std::span<const float>) override { return -1; }
  void write_key(int, std::span<const float>) override {}
  void write_value(int, std::span<const float>) override {}

 private:
  static std::size_t at(int slot) { return static_cast<std::size_t>(slot); }
  bool has_number(int) const override { return true; }

  std::vector<Vectors> queries_;  // [query head]
  Vectors keys_, values_;
  std::vector<std::int32_t> positions_;
  std::vector<float> scores_, numbers_;
  mutable std::vector<float> probabilities_;
};

}  // namespace a2sf::test
