#include "eval/segments.h"

#include <fmt/format.h>

#include <algorithm>

namespace a2sf {
namespace {

constexpr std::size_t kMostRows = 64;

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
    const std::size_t end = decode ? at + 1 : std::min(at + kMostRows, decode_from);
    segments.push_back({at, end, WantLogits::all, false, decode});
    at = end;
  }
  return segments;
}

Status check_tokens(std::span<const std::int32_t> tokens, int vocabulary) {
  const auto outside =
      std::find_if(tokens.begin(), tokens.end(), [&](std::int32_t token) { return token < 0 || token >= vocabulary; });
  if (outside == tokens.end()) return {};
  return fail(
      ErrorKind::bad_input,
      fmt::format("token {}, number {} of the text, is outside the model's vocabulary of {}: the file's tokenizer "
                  "does not fit its weights",
                  *outside, outside - tokens.begin() + 1, vocabulary));
}

}  // namespace a2sf
