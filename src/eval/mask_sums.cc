#include "eval/mask_sums.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "policy/retention.h"

namespace a2sf {

double TrueRow::mass() const { return std::accumulate(probabilities.begin(), probabilities.end(), 0.0); }

Mask ideal_mask(const TrueRow& row, std::int64_t budget) {
  std::vector<std::int32_t> earlier(static_cast<std::size_t>(row.earlier()));
  std::iota(earlier.begin(), earlier.end(), row.oldest);
  const auto end = earlier.begin() + std::min<std::ptrdiff_t>(std::ssize(earlier), budget);
  const auto p = [&](std::int32_t position) { return row.probabilities[static_cast<std::size_t>(position)]; };
  std::nth_element(earlier.begin(), end, earlier.end(),
                   [&](std::int32_t a, std::int32_t b) { return goes_before(p(b), b, p(a), a); });
  Mask mask(row.probabilities.size());
  mask.back() = 1;
  for (auto kept = earlier.begin(); kept != end; ++kept) mask[static_cast<std::size_t>(*kept)] = 1;
  return mask;
}

double share_with(const TrueRow& row, double mass) {
  std::vector<float> p(row.probabilities.begin() + row.oldest, row.probabilities.end());
  std::sort(p.begin(), p.end(), std::greater<>());
  const double wanted = mass * row.mass();
  std::size_t tokens = 0;
  for (double sum = 0; sum < wanted && tokens < p.size(); ++tokens) sum += p[tokens];
  return static_cast<double>(tokens) / static_cast<double>(p.size());
}

MaskMeans compare_masks(const TrueRow& row, const Mask& kept, const Mask& ideal) {
  double both = 0, either = 0, of_kept = 0, of_ideal = 0, mass = 0, ideal_mass = 0, ages = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const double p = row.probabilities[i];
    of_kept += kept[i];
    of_ideal += ideal[i];
    both += kept[i] & ideal[i];
    either += kept[i] | ideal[i];
    mass += kept[i] * p;
    ideal_mass += ideal[i] * p;
    ages += kept[i] * static_cast<double>(row.position() - static_cast<std::int64_t>(i));
  }
  return {.rows = 1,
          .cosine = both / std::sqrt(of_kept * of_ideal),
          .jaccard = both / either,
          .mass = mass / row.mass(),
          .ideal_mass = ideal_mass / row.mass(),
          .age = ages / (of_kept * static_cast<double>(row.position()))};
}

void add(MaskMeans& sum, const MaskMeans& other) {
  sum.rows += other.rows;
  sum.cosine += other.cosine;
  sum.jaccard += other.jaccard;
  sum.mass += other.mass;
  sum.ideal_mass += other.ideal_mass;
  sum.age += other.age;
}

MaskMeans mean_of(const MaskMeans& sum) {
  const auto rows = static_cast<double>(std::max<std::size_t>(1, sum.rows));
  return {sum.rows, sum.cosine / rows, sum.jaccard / rows, sum.mass / rows, sum.ideal_mass / rows, sum.age / rows};
}

Tilt TiltSum::mean() const {
  Tilt mean = bins_;
  for (double& bin : mean) bin /= static_cast<double>(rows_);
  return mean;
}

void TiltSum::spread(double share, double begin, double width) {
  const double end = std::min(begin + width, static_cast<double>(kTiltBins));
  for (auto bin = static_cast<std::size_t>(begin); static_cast<double>(bin) < end; ++bin) {
    const auto from = static_cast<double>(bin);
    bins_[bin] += share * (std::min(end, from + 1) - std::max(begin, from)) / (end - begin);
  }
}

}  // namespace a2sf
