#include "kernels/cpu/attend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace a2sf::cpu {
namespace {

// A single row over more slots than this is shared out over the threads chunk by chunk.
constexpr int kLongRow = 2 * kChunk;

bool evicts(const Span& span) {
  const RetentionMode mode = span.retention->mode;
  return mode == RetentionMode::score || mode == RetentionMode::hook;
}

}  // namespace

void Rotations::prepare(const Step& step, const RopeTable& rope) {
  pairs = static_cast<int>(rope.angles.size());
  interleaved = rope.interleaved;
  cosine.resize(step.tokens.size() * rope.angles.size());
  sine.resize(cosine.size());
  for (const Span& span : step.spans) {
    for (int row = 0; row < span.rows; ++row) {
      const auto base = static_cast<std::size_t>(span.first_row + row) * rope.angles.size();
      for (std::size_t i = 0; i < rope.angles.size(); ++i) {
        const double angle = rope.angles[i] * static_cast<double>(span.first_position + row);
        cosine[base + i] = static_cast<float>(std::cos(angle) * rope.magnitude);
        sine[base + i] = static_cast<float>(std::sin(angle) * rope.magnitude);
      }
    }
  }
}

void Rotations::apply(std::int64_t row, float* head) const {
  const float* c = cosine.data() + row * pairs;
  const float* s = sine.data() + row * pairs;
  const int step = interleaved ? 2 : 1, distance = interleaved ? 1 : pairs;
  for (int i = 0; i < pairs; ++i) {
    float& x = head[i * step];
    float& y = head[i * step + distance];
    const float x0 = x, y0 = y;
    x = x0 * c[i] - y0 * s[i];
    y = x0 * s[i] + y0 * c[i];
  }
}

void Attention::begin(const Step& step, const RopeTable& rope) {
  step_ = &step;
  status_ = {};
  rotations_.prepare(step, rope);
}

// Spans whose rows are independent go first, row by row over the threads; then the others, head by head.
void Attention::attend(const AttendArgs& args) {
  if (!status_) return;
  heads_.resize(std::max(heads_.size(), static_cast<std::size_t>(args.kv_heads)));
  std::vector<const Span*> in_order;
  for (const Span& span : step_->spans) {
    const bool is_long = span.rows == 1 && span.cache->head(args.layer, 0).used > kLongRow && args.window == 0;
    if (span.retention->mode == RetentionMode::hook) {
      attend_hooked(args, span);
    } else if (is_long && span.retention->mode != RetentionMode::ideal) {
      attend_long_row(args, span);
    } else if (!evicts(span) && args.window == 0) {
      attend_all_rows(args, span);
    } else {
      in_order.push_back(&span);
    }
  }
  pool_.run(static_cast<int>(in_order.size()) * args.kv_heads, [&](int task, int worker) {
    attend_in_order(args, *in_order[static_cast<std::size_t>(task / args.kv_heads)], task % args.kv_heads,
                    rows_[static_cast<std::size_t>(worker)]);
  });
}

float* Attention::out(const AttendArgs& args, int row, int kv_head) const {
  return args.out.row(row) + kv_head * (args.heads / args.kv_heads) * args.head_dim;
}

// Step 1: the token's rotated key and its value go into a free slot.
void Attention::append(const AttendArgs& args, const Span& span, int row, int kv_head) {
  const auto dim = static_cast<std::size_t>(args.head_dim);
  float* key = args.k.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * dim;
  const float* value = args.v.row(span.first_row + row) + static_cast<std::size_t>(kv_head) * dim;
  rotations_.apply(span.first_row + row, key);
  span.cache->head(args.layer, kv_head)
      .insert(static_cast<std::int32_t>(span.first_position + row), {key, dim}, {value, dim});
}

void Attention::start(const AttendArgs& args, const Span& span, int row, int kv_head, RowInFlight& flight) const {
  const int group = args.heads / args.kv_heads;
  float* q = args.q.row(span.first_row + row) + kv_head * group * args.head_dim;
  for (int g = 0; g < group; ++g) rotations_.apply(span.first_row + row, q + g * args.head_dim);
  flight.start(kernels_, span.cache->head(args.layer, kv_head), group, args.scale, q, args.head_dim);
}

// The paper's algorithm for one KV head: append, attend, score, evict, token by token.
void Attention::attend_in_order(const AttendArgs& args, const Span& span, int kv_head, RowInFlight& flight) {
  HeadCache& head = span.cache->head(args.layer, kv_head);
  const HeadRule& rule = span.retention->rule(args.layer, kv_head);
  for (int row = 0; row < span.rows; ++row) {
    const std::int64_t now = span.first_position + row;
    free_expired(head, args.window, now, [&](int slot) { release(args, span, now, kv_head, slot); });
    append(args, span, row, kv_head);
    start(args, span, row, kv_head, flight);
    for (int c = 0; c < flight.chunks(); ++c) flight.compute_logits(c);
    flight.hide_free_slots(head.used);
    flight.normalise(static_cast<float>(rule.alpha), evicts(span) ? &head : nullptr);
    if (span.retention->mode == RetentionMode::ideal) flight.keep_ideal(rule.budget, now);
    for (int c = 0; c < flight.chunks(); ++c) flight.compute_values(c);
    flight.write(out(args, span.first_row + row, kv_head));
    evict(args, span, row, kv_head);
  }
}

// Nothing is evicted: every row is independent once all keys are there. A row sees the slots up to its own.
void Attention::attend_all_rows(const AttendArgs& args, const Span& span) {
  std::vector<int> first_slot(static_cast<std::size_t>(args.kv_heads));
  for (int h = 0; h < args.kv_heads; ++h)
    first_slot[static_cast<std::size_t>(h)] = span.cache->head(args.layer, h).used;
  pool_.run(args.kv_heads, [&](int h, int) {
    for (int row = 0; row < span.rows; ++row) append(args, span, row, h);
  });
  pool_.run(args.kv_heads * span.rows, [&](int task, int worker) {
    const int h = task % args.kv_heads, row = task / args.kv_heads;
    RowInFlight& flight = rows_[static_cast<std::size_t>(worker)];
    start(args, span, row, h, flight);
    const int used = first_slot[static_cast<std::size_t>(h)] + row + 1;
    flight.limit_to(used);
    for (int c = 0; c < flight.chunks(); ++c) flight.compute_logits(c);
    flight.hide_free_slots(used);
    flight.normalise(0, nullptr);
    if (span.retention->mode == RetentionMode::ideal) {
      flight.keep_ideal(span.retention->rule(args.layer, h).budget, span.first_position + row);
    }
    for (int c = 0; c < flight.chunks(); ++c) flight.compute_values(c);
    flight.write(out(args, span.first_row + row, h));
  });
}

// One row over many slots: the same steps, each shared out over the threads.
void Attention::attend_long_row(const AttendArgs& args, const Span& span) {
  const auto flight = [&](int h) -> RowInFlight& { return heads_[static_cast<std::size_t>(h)]; };
  std::vector<std::pair<int, int>> pieces;  // (KV head, chunk)
  for (int h = 0; h < args.kv_heads; ++h) {
    append(args, span, 0, h);
    start(args, span, 0, h, flight(h));
    for (int c = 0; c < flight(h).chunks(); ++c) pieces.emplace_back(h, c);
  }
  const int count = static_cast<int>(pieces.size());
  pool_.run(count, [&](int i, int) {
    flight(pieces[static_cast<std::size_t>(i)].first).compute_logits(pieces[static_cast<std::size_t>(i)].second);
  });
  pool_.run(args.kv_heads, [&](int h, int) {
    HeadCache& head = span.cache->head(args.layer, h);
    flight(h).hide_free_slots(head.used);
    flight(h).normalise(static_cast<float>(span.retention->rule(args.layer, h).alpha), evicts(span) ? &head : nullptr);
  });
  pool_.run(count, [&](int i, int) {
    flight(pieces[static_cast<std::size_t>(i)].first).compute_values(pieces[static_cast<std::size_t>(i)].second);
  });
  for (int h = 0; h < args.kv_heads; ++h) {
    flight(h).write(out(args, span.first_row, h));
    evict(args, span, 0, h);
  }
}

void Attention::release(const AttendArgs& args, const Span& span, std::int64_t now, int kv_head, int slot) const {
  HeadCache& head = span.cache->head(args.layer, kv_head);
  if (span.evictions != nullptr) {
    (*span.evictions)[static_cast<std::size_t>(args.layer * args.kv_heads + kv_head)].push_back(
        {head.position(slot), static_cast<std::int32_t>(now)});
  }
  head.release(slot);
}

// Step 4. One victim, the usual case, is found by the vector kernel; many at once by sorting.
void Attention::evict(const AttendArgs& args, const Span& span, int row, int kv_head) const {
  if (span.retention->mode != RetentionMode::score) return;
  HeadCache& head = span.cache->head(args.layer, kv_head);
  const HeadRule& rule = span.retention->rule(args.layer, kv_head);
  const bool prompt_ends = span.prompt_ends && row == span.rows - 1;
  if (span.in_prompt && !prompt_ends) return;
  if (!prompt_ends && head.occupied() < rule.budget + span.retention->block) return;
  const std::int64_t excess = head.occupied() - rule.budget, now = span.first_position + row;
  const Evictable evictable(rule, span.retention->pin, now);
  if (excess != 1) {
    for (const int slot : select_victims(head, evictable, excess)) release(args, span, now, kv_head, slot);
    return;
  }
  if (evictable.last < evictable.first) return;
  Lowest lowest{INFINITY, 0, -1};
  for (int c = 0; c * kChunk < head.used; ++c) {
    const int slots = static_cast<int>(round_up(std::min(kChunk, head.used - c * kChunk), kTile));
    Lowest found =
        kernels_.lowest(head.chunks[static_cast<std::size_t>(c)], slots, static_cast<std::int32_t>(evictable.first),
                        static_cast<std::int32_t>(evictable.last));
    if (found.slot < 0) continue;
    found.slot += c * kChunk;
    const bool earlier = found.score == lowest.score && found.position < lowest.position;
    if (found.score < lowest.score || earlier) lowest = found;
  }
  if (lowest.slot >= 0) release(args, span, now, kv_head, lowest.slot);
}

// A hook sees the whole layer after each row, so rows are outermost and heads come one after the other.
void Attention::attend_hooked(const AttendArgs& args, const Span& span) {
  for (int row = 0; row < span.rows && status_; ++row) {
    pool_.run(args.kv_heads, [&](int h, int) {
      HeadCache& head = span.cache->head(args.layer, h);
      RowInFlight& flight = heads_[static_cast<std::size_t>(h)];
      append(args, span, row, h);
      start(args, span, row, h, flight);
      for (int c = 0; c < flight.chunks(); ++c) flight.compute_logits(c);
      flight.hide_free_slots(head.used);
      flight.normalise(static_cast<float>(span.retention->rule(args.layer, h).alpha), &head);
      for (int c = 0; c < flight.chunks(); ++c) flight.compute_values(c);
      flight.write(out(args, span.first_row + row, h));
    });
    call_hook(args, span, row);
  }
}

}  // namespace a2sf::cpu
