// What analyse_masks() adds up: a mask, the comparison of two, shares by relative position.
#pragma once

#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "eval/masks.h"

namespace a2sf {

// What the full cache gives to the tokens of a row in one KV head.
struct TrueRow {
  std::int32_t oldest = 0;           // the first position that the row sees
  std::vector<float> probabilities;  // [position], up to the row's own; summed over the group

  std::int64_t position() const { return std::ssize(probabilities) - 1; }
  std::int64_t earlier() const { return position() - oldest; }  // tokens to choose from
  double mass() const;
};

using Mask = std::vector<std::uint8_t>;  // [position], up to the row's own: whether it is attended to

// The row itself and its `budget` earlier tokens of highest probability.
Mask ideal_mask(const TrueRow& row, std::int64_t budget);
// The smallest share of the row's tokens that has `mass` of its probability.
double share_with(const TrueRow& row, double mass);
// How well a mask does for one row.
MaskMeans compare_masks(const TrueRow& row, const Mask& kept, const Mask& ideal);

void add(MaskMeans& sum, const MaskMeans& other);
MaskMeans mean_of(const MaskMeans& sum);

// Adds up rows, each as the shares that its tokens have.
class TiltSum {
 public:
  // weights: [position], up to the row's own, at least 0. A token lies in all bins that its place in the row overlaps.
  template <class Weight>
  void add(std::span<const Weight> weights) {
    double sum = 0;
    for (const Weight weight : weights) sum += weight;
    if (sum == 0) return;
    bins_.resize(kTiltBins);
    const double width = static_cast<double>(kTiltBins) / static_cast<double>(weights.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] != 0) spread(weights[i] / sum, static_cast<double>(i) * width, width);
    }
    ++rows_;
  }
  Tilt mean() const;

 private:
  void spread(double share, double begin, double width);

  Tilt bins_;
  std::size_t rows_ = 0;
};

}  // namespace a2sf
