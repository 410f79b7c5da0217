// What is asked of rows of logits, on the host.
#pragma once

#include "kernels/host/activations.h"

namespace a2sf {

// log(sum(exp(logits))).
double log_sum_exp(std::span<const float> logits);

// Of a finite row: everything the query asks for but the row itself. Allocates nothing.
void answer(const LogitsQuery& query, std::span<const float> logits);

// The rows of logits that a step wants.
class HostLogits {
 public:
  explicit HostLogits(Memory& memory) : memory_(&memory) {}
  // An error: nothing has changed.
  Status begin(const Step& step, int vocabulary);
  // [wanted][vocabulary], for the head's product to write to: the caller's memory where it takes the rows one after the
  // other, else memory of this object.
  HostRows rows() const { return rows_; }
  // Gives the caller what it wants of a wanted row that is complete.
  void deliver(int index) const;

 private:
  Memory* memory_;
  std::span<const LogitsQuery> wanted_;
  OwnedBuffer buffer_;
  HostRows rows_;
};

}  // namespace a2sf
