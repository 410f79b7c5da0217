// How far a figure can be trusted.
#pragma once

#include <cstddef>
#include <span>

namespace a2sf {

struct Estimate {
  double mean = 0, standard_error = 0;  // 0 of fewer than two values
};

// Of a mean, with the sample's variance (n - 1); of values 0 and 1 it is sqrt(p (1 - p) / (n - 1)).
Estimate estimate(std::span<const double> values);

// McNemar's exact test: how probable it is that of the items on which two policies disagree the split is at least as
// uneven as this one, if each way were equally probable. Two-sided; 1 where they agree on all.
double mcnemar_p(std::size_t only_first_right, std::size_t only_second_right);

}  // namespace a2sf
