#include "tune/memory_search.h"

#include <cmath>
#include <span>

#include "tune/subplex.h"

namespace a2sf {
namespace {

// Logarithms to base 2.
constexpr double kShortest = -3, kLongest = 6, kFirstStep = 1, kTolerance = 0.02;
const double kStart = std::log2(1.5);

std::size_t groups_of(MemoryGroups groups, std::size_t layers, std::size_t kv_heads) {
  if (groups == MemoryGroups::one) return 1;
  return groups == MemoryGroups::per_layer ? layers : layers * kv_heads;
}

// A logarithm for each group of heads.
MemoryTable table_of(std::span<const double> logs, std::size_t layers, std::size_t kv_heads) {
  MemoryTable table(layers, std::vector<double>(kv_heads));
  const std::size_t heads_per_group = layers * kv_heads / logs.size();
  for (std::size_t head = 0; head < layers * kv_heads; ++head)
    table[head / kv_heads][head % kv_heads] = std::round(std::exp2(logs[head / heads_per_group]) * 1e4) / 1e4;
  return table;
}

}  // namespace

std::size_t calls_of(const MemorySearch& search, std::size_t layers, std::size_t kv_heads) {
  if (search.calls > 0) return search.calls;
  const std::size_t groups = groups_of(search.groups, layers, kv_heads);
  return groups == 1 ? 20 : 6 * groups;
}

Result<MemoryTable> search_memories(std::size_t layers, std::size_t kv_heads, const MemorySearch& search,
                                    const MemoryCost& cost) {
  const SubplexSearch by{.start = std::vector<double>(groups_of(search.groups, layers, kv_heads), kStart),
                         .low = kShortest,
                         .high = kLongest,
                         .first_step = kFirstStep,
                         .tolerance = kTolerance,
                         .calls = calls_of(search, layers, kv_heads)};
  const auto best =
      least_by_subplex(by, [&](std::span<const double> logs) { return cost(table_of(logs, layers, kv_heads)); });
  if (!best) return tl::unexpected(best.error());
  return table_of(*best, layers, kv_heads);
}

}  // namespace a2sf
