// The speed of light: how fast a test could be if the machine did nothing but read the bytes and multiply the numbers
// that it needs.
#pragma once

#include "core/machine_rates.h"
#include "eval/bench.h"

namespace a2sf {

struct OperationBound {
  const char* name;  // "matrices", "attention"
  double seconds;    // spent per token
  double bound;      // seconds per token at best
};

struct SpeedBound {
  MachineRates rates;
  double tokens_per_s;  // at best
  std::vector<OperationBound> operations;
};

// A decoded token reads all weights and all it attends to; tokens of a prompt share the weights, which are read once,
// and multiply, as those of sequences do which decode together. What takes neither, such as norms and the choice of
// victims, has no part in the bound.
SpeedBound bound_of(const MachineRates& rates, const Model& model, const SpeedTest& test, const SpeedResult& result);

// Of the threads and instructions that this model computes with. Takes a second.
Result<MachineRates> measure_rates(const Model& model);

}  // namespace a2sf
