// What is asked of rows of logits, on the host.
#pragma once

#include "kernels/host/activations.h"

namespace a2sf {

// log(sum(exp(logits))), in plain loops: the definition.
double log_sum_exp(std::span<const float> logits);

// That, or a faster form of it.
using LogSumExp = double (*)(std::span<const float> logits);

// Of a finite row: everything the query asks for but the row itself. Allocates nothing.
void answer(const LogitsQuery& query, std::span<const float> logits, LogSumExp log_sum_of = log_sum_exp);

// The rows of logits that a step wants.
class HostLogits {
 public:
  HostLogits(Memory& memory, LogSumExp log_sum_of) : memory_(&memory), log_sum_of_(log_sum_of) {}
  // An error: nothing has changed.
  Status begin(const Step& step, int vocabulary);
  // [wanted][vocabulary], for the head's product to write to: the caller's memory where it takes the rows one after the
  // other, else memory of this object.
  HostRows rows() const { return rows_; }
  // Gives the caller what it wants of a wanted row that is complete.
  void deliver(int index) const;

 private:
  Memory* memory_;
  LogSumExp log_sum_of_;
  std::span<const LogitsQuery> wanted_;
  OwnedBuffer buffer_;
  HostRows rows_;
};

}  // namespace a2sf
