#include "kernels/cpu/attend.h"

#include <algorithm>
#include <cmath>

namespace a2sf::cpu {
namespace {

// Queries of a tile of rows; a multiple of what the matrix kernel takes at once.
constexpr int kQueriesAtOnce = 24;

// The oldest of the tokens with the lowest score among those that may go.
int find_victim(const RowKernels& kernels, const HeadCache& head, const Evictable& evictable, float lowest) {
  int victim = -1;
  for (int c = 0; c * kChunk < head.used() && std::isfinite(lowest); ++c) {
    const int slots = static_cast<int>(round_up(std::min(kChunk, head.used() - c * kChunk), kTile));
    const int found =
        kernels.find_score(head.chunks()[static_cast<std::size_t>(c)], slots, lowest,
                           static_cast<std::int32_t>(evictable.first), static_cast<std::int32_t>(evictable.last));
    if (found < 0) continue;
    if (victim < 0 || head.position(c * kChunk + found) < head.position(victim)) victim = c * kChunk + found;
  }
  return victim;
}

}  // namespace

// So many that their weights of a chunk stay in the first level cache.
int Attention::rows_at_once(int group) { return std::max(1, kQueriesAtOnce / group); }

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

Attention::Attention(ThreadPool& pool, const RowKernels& kernels, SpanFailures& failures)
    : pool_(pool),
      kernels_(kernels),
      failures_(failures),
      flights_(static_cast<std::size_t>(pool.threads())),
      handed_over_(std::make_unique<std::atomic<bool>[]>(flights_.size())) {}

void Attention::begin(const Step& step, const ModelShape& shape) {
  step_ = &step;
  rotations_.resize(shape.ropes.size());
  for (std::size_t i = 0; i < shape.ropes.size(); ++i) rotations_[i].prepare(step, shape.ropes[i]);
  chains_.clear();
  pieces_.clear();
  for (const Span& span : step.spans) reserve(span, shape.heads);
}

// Any worker may get any tile, and a long row is spread over as many flights as there are KV heads.
void Attention::reserve(const Span& span, int heads) {
  const CacheShape& shape = span.cache->shape();
  const auto kv_heads = static_cast<std::size_t>(shape.kv_heads);
  const std::int64_t slots = round_up(span.cache->most_used(span.rows), kTile);
  const int group = heads / shape.kv_heads, rows = std::min(span.rows, rows_at_once(group));
  const bool keeps =
      scores(span) || span.retention->mode == RetentionMode::ideal || (span.rows == 1 && slots > kLongRow);
  flights_.resize(std::max(flights_.size(), kv_heads));
  for (RowsInFlight& flight : flights_)
    flight.reserve(std::int64_t{rows} * group, slots, round_up(shape.head_dim, kTile), keeps);
  chains_.reserve(step_->spans.size() * kv_heads);
  first_slots_.resize(std::max(first_slots_.size(), kv_heads));
  pieces_.reserve(kv_heads * static_cast<std::size_t>((slots + kChunk - 1) / kChunk));
}

void Attention::rotate(const AttendArgs& args, int row, float* head) const {
  const Rotations& r = rotations_[static_cast<std::size_t>(args.rope)];
  const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(row) * r.pairs;
  kernels_.rotate(head, r.cosine.data() + first, r.sine.data() + first, r.pairs, r.interleaved);
}

// Step 0.
void Attention::expire(const AttendArgs& args, const Span& span, int row, int kv_head) const {
  const std::int64_t now = span.first_position + row;
  free_expired(span.cache->head(args.layer, kv_head), args.window, now,
               [&](int slot) { release(args, span, now, kv_head, slot); });
}

// Step 1: the tokens' rotated keys and their values go into free slots. False: the sequence has failed.
bool Attention::append(const AttendArgs& args, const Span& span, Rows rows, int kv_head) {
  HeadCache& head = span.cache->head(args.layer, kv_head);
  for (int row = rows.first; row < rows.end(); ++row) {
    float* key = args.k.row(span.first_row + row) + kv_head * args.head_dim;
    const float* value = args.v.row(span.first_row + row) + kv_head * args.head_dim;
    rotate(args, span.first_row + row, key);
    const bool finite = kernels_.finite(key, args.head_dim) && kernels_.finite(value, args.head_dim);
    if (!finite || head.is_full()) {
      failures_.report(span, finite ? FailureCause::eviction : FailureCause::attention, span.first_position + row,
                       args.layer, kv_head);
      return false;
    }
    const int slot = head.claim(static_cast<std::int32_t>(span.first_position + row));
    kernels_.store(head.chunk_of(slot), head.type(), slot % kChunk, head.dim(), args.head_dim, key, value);
  }
  return true;
}

void Attention::start(const AttendArgs& args, const Span& span, Rows rows, int kv_head, int slots, bool keep,
                      RowsInFlight& flight) const {
  const QueryGroup group{args.heads / args.kv_heads, args.head_dim, args.scale, args.window};
  flight.start(kernels_, span.cache->head(args.layer, kv_head), group, span.first_position + rows.first, rows.count,
               slots, keep);
  for (int i = 0; i < rows.count; ++i) {
    const int row = span.first_row + rows.first + i;
    for (int g = 0; g < group.heads; ++g) {
      std::copy_n(args.q.row(row) + (kv_head * group.heads + g) * args.head_dim, args.head_dim, flight.query(i, g));
      rotate(args, row, flight.query(i, g));
    }
  }
}

void Attention::finish(const AttendArgs& args, const Span& span, Rows rows, int kv_head, RowsInFlight& flight) const {
  const int columns = args.heads / args.kv_heads * args.head_dim;
  for (int i = 0; i < rows.count; ++i) {
    flight.write(i, args.out.row(span.first_row + rows.first + i) + kv_head * columns);
  }
}

// What is asked for while a span's last row reads its values: the same head of the next layer. Nothing of it is near
// otherwise, since a token passes over all weights and all layers before it comes back.
const std::byte* Attention::read_next(const AttendArgs& args, const Span& span, Rows rows, int kv_head) {
  if (rows.end() < span.rows) return nullptr;
  const HeadCache& head = span.cache->head((args.layer + 1) % span.cache->shape().layers, kv_head);
  return head.chunks().empty() ? nullptr : head.chunks().front().keys;
}

// `bad_row`: of these rows, the first with a logit that is not finite, or -1. False: the sequence has failed.
bool Attention::is_finite(const AttendArgs& args, const Span& span, Rows rows, int kv_head, int bad_row) const {
  if (bad_row < 0) return true;
  failures_.report(span, FailureCause::attention, span.first_position + rows.first + bad_row, args.layer, kv_head);
  return false;
}

// Step 2, of rows of one head that are there already. False: the sequence has failed.
bool Attention::attend_rows(const AttendArgs& args, const Span& span, Rows rows, int kv_head, int slots,
                            RowsInFlight& flight) const {
  const bool is_ideal = span.retention->mode == RetentionMode::ideal;
  start(args, span, rows, kv_head, slots, scores(span) || is_ideal, flight);
  const int bad_row = is_ideal ? flight.run_ideal(span.retention->rule(args.layer, kv_head).budget)
                               : flight.run(read_next(args, span, rows, kv_head));
  if (!is_finite(args, span, rows, kv_head, bad_row)) return false;
  finish(args, span, rows, kv_head, flight);
  return true;
}

// Steps 3 and 4. Only after the last of these rows may anything go.
void Attention::score_and_evict(const AttendArgs& args, const Span& span, Rows rows, int kv_head,
                                RowsInFlight& flight) const {
  if (!scores(span)) return;
  const HeadRule& rule = span.retention->rule(args.layer, kv_head);
  const int last = rows.end() - 1;
  const Evictable evictable(rule, span.retention->pin, span.first_position + last);
  float lowest = INFINITY;
  for (int i = 0; i < rows.count; ++i) lowest = flight.score(i, static_cast<float>(rule.alpha), evictable);
  evict(args, span, last, kv_head, lowest, flight.victims());
}

// The rows that can be attended to together: nothing goes before the last of them.
int Attention::rows_until_eviction(const AttendArgs& args, const Span& span, int row, int kv_head) const {
  const int rows = std::min(rows_at_once(args.heads / args.kv_heads), span.rows - row);
  if (args.window > 0 || span.retention->mode == RetentionMode::ideal) return 1;
  if (!scores(span) || span.in_prompt) return rows;
  const std::int64_t limit = span.retention->rule(args.layer, kv_head).budget + span.retention->block;
  return static_cast<int>(std::clamp<std::int64_t>(limit - span.cache->head(args.layer, kv_head).occupied(), 1, rows));
}

// The paper's algorithm for one KV head: append, attend, score, evict, token by token or block by block.
void Attention::attend_in_order(const AttendArgs& args, const Span& span, Rows rows, int kv_head,
                                RowsInFlight& flight) {
  HeadCache& head = span.cache->head(args.layer, kv_head);
  for (int row = rows.first; row < rows.end() && !failures_.failed(span);) {
    expire(args, span, row, kv_head);
    const Rows block{row, std::min(rows_until_eviction(args, span, row, kv_head), rows.end() - row)};
    if (!append(args, span, block, kv_head) || !attend_rows(args, span, block, kv_head, head.used(), flight)) return;
    score_and_evict(args, span, block, kv_head, flight);
    row = block.end();
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

// Step 4. One victim, the usual case, is the slot with the lowest score; many at once are found by sorting.
void Attention::evict(const AttendArgs& args, const Span& span, int row, int kv_head, float lowest,
                      std::vector<int>& victims) const {
  if (span.retention->mode != RetentionMode::score) return;
  HeadCache& head = span.cache->head(args.layer, kv_head);
  const HeadRule& rule = span.retention->rule(args.layer, kv_head);
  const bool prompt_ends = span.prompt_ends && row == span.rows - 1;
  if (span.in_prompt && !prompt_ends) return;
  if (!prompt_ends && head.occupied() < rule.budget + span.retention->block) return;
  const std::int64_t excess = head.occupied() - rule.budget, now = span.first_position + row;
  const Evictable evictable(rule, span.retention->pin, now);
  if (excess != 1) {
    select_victims(head, evictable, excess, victims);
    for (const int slot : victims) release(args, span, now, kv_head, slot);
    return;
  }
  const int victim = find_victim(kernels_, head, evictable, lowest);
  if (victim >= 0) release(args, span, now, kv_head, victim);
}

}  // namespace a2sf::cpu
