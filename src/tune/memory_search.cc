#include "tune/memory_search.h"

#include <nlopt.h>

#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <utility>

namespace a2sf {
namespace {

// Logarithms to base 2.
constexpr double kShortest = -3, kLongest = 6, kFirstStep = 1, kTolerance = 0.02;
const double kStart = std::log2(1.5);

std::size_t groups_of(MemoryGroups groups, std::size_t layers, std::size_t kv_heads) {
  if (groups == MemoryGroups::one) return 1;
  return groups == MemoryGroups::per_layer ? layers : layers * kv_heads;
}

class Search {
 public:
  Search(std::size_t layers, std::size_t kv_heads, const MemorySearch& search, const MemoryCost& cost)
      : groups_(groups_of(search.groups, layers, kv_heads)),
        layers_(layers),
        kv_heads_(kv_heads),
        cost_(cost),
        best_(groups_, kStart),
        optimizer_(nlopt_create(NLOPT_LN_SBPLX, static_cast<unsigned>(groups_)), nlopt_destroy) {
    nlopt_set_min_objective(optimizer_.get(), call, this);
    nlopt_set_lower_bounds1(optimizer_.get(), kShortest);
    nlopt_set_upper_bounds1(optimizer_.get(), kLongest);
    nlopt_set_initial_step1(optimizer_.get(), kFirstStep);
    nlopt_set_xtol_abs1(optimizer_.get(), kTolerance);
    nlopt_set_maxeval(optimizer_.get(), static_cast<int>(calls_of(search, layers, kv_heads)));
  }

  // The first point it tries is the start.
  Result<MemoryTable> run() {
    std::vector<double> logs(groups_, kStart);
    double least = 0;
    nlopt_optimize(optimizer_.get(), logs.data(), &least);
    if (!status_) return tl::unexpected(status_.error());
    return table_of(best_);
  }

 private:
  MemoryTable table_of(std::span<const double> logs) const {
    MemoryTable table(layers_, std::vector<double>(kv_heads_));
    const std::size_t heads_per_group = layers_ * kv_heads_ / groups_;
    for (std::size_t head = 0; head < layers_ * kv_heads_; ++head)
      table[head / kv_heads_][head % kv_heads_] = std::round(std::exp2(logs[head / heads_per_group]) * 1e4) / 1e4;
    return table;
  }

  static double call(unsigned count, const double* logs, double*, void* search) {
    return static_cast<Search*>(search)->cost_of({logs, count});
  }

  double cost_of(std::span<const double> logs) {
    const auto cost = cost_(table_of(logs));
    if (!cost) {
      status_ = tl::unexpected(cost.error());
      nlopt_force_stop(optimizer_.get());
      return 0;
    }
    if (*cost < least_) {
      least_ = *cost;
      best_.assign(logs.begin(), logs.end());
    }
    return *cost;
  }

  std::size_t groups_, layers_, kv_heads_;
  const MemoryCost& cost_;
  double least_ = std::numeric_limits<double>::infinity();
  std::vector<double> best_;
  std::unique_ptr<nlopt_opt_s, decltype(&nlopt_destroy)> optimizer_;
  Status status_;
};

}  // namespace

std::size_t calls_of(const MemorySearch& search, std::size_t layers, std::size_t kv_heads) {
  if (search.calls > 0) return search.calls;
  const std::size_t groups = groups_of(search.groups, layers, kv_heads);
  return groups == 1 ? 20 : 6 * groups;
}

Result<MemoryTable> search_memories(std::size_t layers, std::size_t kv_heads, const MemorySearch& search,
                                    const MemoryCost& cost) {
  return Search(layers, kv_heads, search, cost).run();
}

}  // namespace a2sf
