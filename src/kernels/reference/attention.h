// Attention of a step as plain loops, row by row: the definition of attend beyond one KV head.
#pragma once

#include <span>

#include "kernels/host/activations.h"
#include "kernels/host/spans.h"
#include "kernels/host/watch.h"
#include "kernels/reference/attend.h"
#include "kernels/span_failures.h"

namespace a2sf::reference {

class Attention {
 public:
  explicit Attention(SpanFailures& failures) : failures_(failures) {}
  void begin(const Step& step, std::span<const RopeTable> ropes);
  void attend(const HostAttendArgs& args);

 private:
  // One row of one KV head, with rotated copies of what it reads.
  struct HeadRow {
    std::vector<float> q, k;
    std::vector<double> probabilities;
    Row row;
  };

  void attend_span(const HostAttendArgs& args, const Span& span);
  void attend_shadow(const HostAttendArgs& args, const Span& span, const Shadow& shadow);
  Status attend_row(const HostAttendArgs& args, const Span& span, int row);
  HeadRow head_row(const HostAttendArgs& args, const Span& span, int row, int kv_head) const;
  bool attend_head(const HostAttendArgs& args, const Span& span, HeadRow& head, int kv_head);

  SpanFailures& failures_;
  const Step* step_ = nullptr;
  std::span<const RopeTable> ropes_;
};

}  // namespace a2sf::reference
