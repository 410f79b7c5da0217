// The subplex method (NLopt, LN_SBPLX): needs no gradient and bears with noise.
#pragma once

#include <a2sf/result.h>

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

namespace a2sf {

// What a point costs, the less the better; an error ends the search.
using PointCost = std::function<Result<double>(std::span<const double>)>;

struct SubplexOptions {
  double least, most;  // bounds of every coordinate
  double first_step, tolerance;
  std::size_t calls;  // of the cost, at most
};

// The point of least cost that the search meets; the first that it tries is the start.
Result<std::vector<double>> search_subplex(std::vector<double> start, const SubplexOptions& options,
                                           const PointCost& cost);

}  // namespace a2sf
