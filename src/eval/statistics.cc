#include "eval/statistics.h"

#include <algorithm>
#include <cmath>

namespace a2sf {

Estimate estimate(std::span<const double> values) {
  const auto count = static_cast<double>(values.size());
  if (values.empty()) return {};
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  const double mean = sum / count;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, values.size() < 2 ? 0 : std::sqrt(squares / (count - 1) / count)};
}

double mcnemar_p(std::size_t only_first_right, std::size_t only_second_right) {
  const auto n = static_cast<double>(only_first_right + only_second_right);
  const std::size_t fewer = std::min(only_first_right, only_second_right);
  double tail = 0;
  for (std::size_t k = 0; k <= fewer; ++k) {
    const auto i = static_cast<double>(k);
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(i + 1) - std::lgamma(n - i + 1) - n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

}  // namespace a2sf
