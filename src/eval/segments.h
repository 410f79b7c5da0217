// How a text is fed to a session that is scored: which tokens in one call, and which rows of logits are wanted.
#pragma once

#include <a2sf/session.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace a2sf {

struct Segment {
  std::size_t begin, end;  // tokens
  WantLogits logits;
  bool prompt;  // see Feed::prompt
  bool decode;  // one of the tokens fed one by one
};

struct SegmentPlan {
  std::size_t tokens = 0;
  std::size_t prompt = 0;     // the first tokens, fed in one call
  std::size_t first_row = 0;  // rows from here on are scored; at least prompt - 1
  std::size_t decode = 0;     // the last tokens, fed one by one
};

std::vector<Segment> make_segments(const SegmentPlan& plan);

// What is scored is looked up in rows of logits: a token that a tokenizer knows but the model has no row for is an
// error that names it.
Status check_tokens(std::span<const std::int32_t> tokens, int vocabulary);

// The row of the first logits that the segment asks for.
inline std::size_t first_wanted_row(const Segment& segment) {
  return segment.logits == WantLogits::last ? segment.end - 1 : segment.begin;
}

}  // namespace a2sf
