// What a loss in one layer means for the model's predictions, beside the same loss in another.
#pragma once

#include "tune/damage.h"

namespace a2sf {

// [layer]: factors for the damages of a ladder, about 1 in most layers. The full cache reads the window, and beside it
// one sequence for each layer in which `budget`, a rung of the ladder, bounds that layer alone. A layer's weight is its
// KL to the full cache over what its damage lets expect. Rounding moves predictions as well, by as much as the least
// KL; that is added to what is expected, so that a layer which loses next to nothing has weight 1.
//
// Damage relative to the input of a layer is a good measure but in the first layers, whose input is still small.
Result<std::vector<double>> measure_layer_weights(const std::shared_ptr<const Model>& model,
                                                  std::span<const std::int32_t> window, const PolicySpec& spec,
                                                  const DamageLadder& ladder, std::size_t rung,
                                                  const TuneProgress& progress);

void weigh(DamageLadder& ladder, std::span<const double> layer_weights);

}  // namespace a2sf
