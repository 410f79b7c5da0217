#include "eval/segments.h"

#include <algorithm>

namespace a2sf {
namespace {

constexpr std::size_t kChunk = 64;

}  // namespace

std::vector<Segment> make_segments(const SegmentPlan& plan) {
  std::vector<Segment> segments;
  std::size_t at = 0;
  if (plan.prompt > 0) {
    const WantLogits logits = plan.first_row < plan.prompt ? WantLogits::last : WantLogits::none;
    segments.push_back({0, plan.prompt, logits, true, false});
    at = plan.prompt;
  }
  if (plan.first_row > at) {
    segments.push_back({at, plan.first_row, WantLogits::none, false, false});
    at = plan.first_row;
  }
  const std::size_t decode_from = std::max(at, plan.tokens - std::min(plan.tokens, plan.decode));
  while (at < plan.tokens) {
    const bool decode = at >= decode_from;
    const std::size_t end = decode ? at + 1 : std::min(at + kChunk, decode_from);
    segments.push_back({at, end, WantLogits::all, false, decode});
    at = end;
  }
  return segments;
}

}  // namespace a2sf
