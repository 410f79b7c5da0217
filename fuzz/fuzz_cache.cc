// Bytes as a program of cache operations, beside a plain map of what each head should hold.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "cache/sequence_cache.h"
#include "core/memory.h"

namespace {

using namespace a2sf;

constexpr int kHeads = 3, kDim = 5;
constexpr std::int32_t kMostTokens = 2000;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}
  bool empty() const { return rest_.empty(); }
  int next() {
    if (rest_.empty()) return 0;
    const int byte = rest_.front();
    rest_ = rest_.subspan(1);
    return byte;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

// Exact in f16 for every position, and different in every dimension.
std::array<float, kDim> vector_of(std::int32_t position, float sign) {
  std::array<float, kDim> x{};
  for (int i = 0; i < kDim; ++i) x[static_cast<std::size_t>(i)] = sign * static_cast<float>((position + i) % 2048);
  return x;
}

SlotPlans random_plans(Bytes& bytes) {
  SlotPlans plans;
  for (int h = 0; h < kHeads; ++h) {
    const int kind = bytes.next(), slots = bytes.next() + 256 * (kind % 2) + 1;
    plans.push_back(kind % 4 == 0 ? SlotPlan() : SlotPlan::bounded(slots));
  }
  return plans;
}

class Program {
 public:
  explicit Program(Bytes& bytes) : bytes_(bytes) {
    const int kind = bytes_.next();
    const KvType type = kind % 2 == 0 ? KvType::f16 : KvType::f32;
    weighs_values_ = kind / 2 % 2 == 1;
    plans_ = random_plans(bytes_);
    cache_ = SequenceCache(host_memory(), {1, kHeads, kDim, type, weighs_values_ ? 1 : 0, weighs_values_}, plans_);
  }

  void run() {
    while (!bytes_.empty()) {
      const int operation = bytes_.next(), h = bytes_.next() % kHeads;
      if (operation < 128) {
        insert(h, operation);
      } else if (operation < 224) {
        release(h, bytes_.next());
      } else if (operation < 240) {
        clone();
      } else {
        rebuild();
      }
      check_counts();
    }
    check_contents(cache_);
  }

 private:
  struct Token {
    float score, weight;
    bool operator==(const Token&) const = default;
  };
  using Held = std::map<std::int32_t, Token>;  // by position
  // The values that a head has seen.
  struct Seen {
    std::array<double, kDim> sum{};
    int count = 0;
    double add(std::span<const float> value) {  // returns the value's distance to their mean
      ++count;
      double squares = 0;
      for (std::size_t i = 0; i < kDim; ++i) {
        sum[i] += value[i];
        squares += std::pow(value[i] - sum[i] / count, 2);
      }
      return std::sqrt(squares);
    }
  };

  float weight_of(const HeadCache& head, int slot) const {
    return weighs_values_ ? head.number(slot, kValueWeight) : 0;
  }

  void insert(int h, int count) {
    HeadCache& head = cache_.head(0, h);
    require(cache_.make_room(count).has_value());
    for (int i = 0; i < count && now_ < kMostTokens; ++i) {
      if (head.is_full()) return;
      const auto value = vector_of(now_, -1);
      const int slot = head.insert(now_, vector_of(now_, 1), value);
      require(slot >= 0 && slot < head.used() && head.position(slot) == now_ && head.score(slot) == 0);
      head.score(slot) = static_cast<float>(now_) / 2;
      if (weighs_values_) {
        head.weigh(slot, value);
        require(std::abs(weight_of(head, slot) - seen_[static_cast<std::size_t>(h)].add(value)) < .05);
      }
      held_[static_cast<std::size_t>(h)][now_] = {head.score(slot), weight_of(head, slot)};
      ++now_;
    }
  }

  void release(int h, int which) {
    HeadCache& head = cache_.head(0, h);
    if (head.used() == 0) return;
    const int slot = which * 7 % head.used();
    if (head.position(slot) < 0) return;
    require(held_[static_cast<std::size_t>(h)].erase(head.position(slot)) == 1);
    head.release(slot);
  }

  void clone() {
    auto copy = cache_.clone();
    require(copy.has_value() && copy->bytes() == cache_.bytes());
    for (int h = 0; h < kHeads; ++h) {
      const HeadCache &a = cache_.head(0, h), &b = copy->head(0, h);
      require(a.used() == b.used() && a.occupied() == b.occupied() && a.room() == b.room());
      for (int slot = 0; slot < a.used(); ++slot) require(a.position(slot) == b.position(slot));
    }
    check_contents(*copy);
    cache_ = std::move(*copy);
  }

  void rebuild() {
    const SlotPlans plans = random_plans(bytes_);
    bool fits = true;
    for (std::size_t h = 0; h < kHeads; ++h) {
      fits = fits && static_cast<std::int64_t>(held_[h].size()) <= plans[h].most;
    }
    auto copy = cache_.rebuilt(plans);
    require(copy.has_value() == fits);
    if (!fits) return;
    check_contents(*copy);
    for (int h = 0; h < kHeads; ++h) {
      const HeadCache& head = copy->head(0, h);
      require(head.occupied() == head.used());
      for (int slot = 1; slot < head.used(); ++slot) require(head.position(slot - 1) < head.position(slot));
    }
    cache_ = std::move(*copy);
    plans_ = plans;
    if (std::all_of(held_.begin(), held_.end(), [](const Held& held) { return held.empty(); })) seen_ = {};
  }

  void check_counts() const {
    for (int h = 0; h < kHeads; ++h) {
      const HeadCache& head = cache_.head(0, h);
      require(head.used() <= head.room() && head.room() % kTile == 0);
      require(head.occupied() <= plans_[static_cast<std::size_t>(h)].most);
      require(static_cast<std::size_t>(head.occupied()) == held_[static_cast<std::size_t>(h)].size());
    }
  }

  void check_contents(const SequenceCache& cache) const {
    std::array<float, kDim> x{};
    for (int h = 0; h < kHeads; ++h) {
      const HeadCache& head = cache.head(0, h);
      Held found;
      for (int slot = 0; slot < head.used(); ++slot) {
        const std::int32_t position = head.position(slot);
        if (position < 0) continue;
        head.read_key(slot, x);
        require(x == vector_of(position, 1));
        head.read_value(slot, x);
        require(x == vector_of(position, -1));
        found[position] = {head.score(slot), weight_of(head, slot)};
      }
      for (std::int64_t slot = head.used(); slot < head.room(); ++slot)
        require(head.position(static_cast<int>(slot)) == -1);
      require(found == held_[static_cast<std::size_t>(h)]);
    }
  }

  Bytes& bytes_;
  SlotPlans plans_;
  SequenceCache cache_;
  bool weighs_values_ = false;
  std::array<Held, kHeads> held_;
  std::array<Seen, kHeads> seen_;
  std::int32_t now_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, size);
  Program(bytes).run();
  return 0;
}
