// The least of a function of some numbers, found by trying it.
#pragma once

#include <a2sf/result.h>

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

namespace a2sf {

struct SubplexSearch {
  std::vector<double> start;
  double low, high, first_step, tolerance;  // of every number
  std::size_t calls;                        // of the cost, at most
};

// The less the better; an error ends the search.
using SubplexCost = std::function<Result<double>(std::span<const double>)>;

// The best point that is met; the first one is the start. By the subplex method (NLopt, LN_SBPLX), which needs no
// gradient and bears with noise.
Result<std::vector<double>> least_by_subplex(const SubplexSearch& search, const SubplexCost& cost);

}  // namespace a2sf
