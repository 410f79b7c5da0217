// How long the KV heads of a model remember (AutoAlpha::memory): found by trying it.
#pragma once

#include <a2sf/result.h>

#include <cstddef>
#include <functional>
#include <vector>

namespace a2sf {

// Which heads share a memory.
enum class MemoryGroups { one, per_layer, per_head };

// [layer][kv head], in budgets.
using MemoryTable = std::vector<std::vector<double>>;

// What these memories cost on tuning data, the less the better; an error ends the search.
using MemoryCost = std::function<Result<double>(const MemoryTable&)>;

struct MemorySearch {
  MemoryGroups groups = MemoryGroups::one;
  std::size_t calls = 0;  // of the cost, at most; 0: 20 for one memory, else 6 for each
};

std::size_t calls_of(const MemorySearch& search, std::size_t layers, std::size_t kv_heads);

// The memories of least cost that the search meets, from 1/8 to 64 budgets, beginning at the standard 1.5 everywhere,
// and no worse than that. By the subplex method (subplex.h), over the memories' logarithms.
Result<MemoryTable> search_memories(std::size_t layers, std::size_t kv_heads, const MemorySearch& search,
                                    const MemoryCost& cost);

}  // namespace a2sf
