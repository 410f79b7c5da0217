#include "kernels/cpu/attend.h"

#include <algorithm>
#include <cmath>
#include <thread>

namespace a2sf::cpu {
namespace {

// A single row over more slots than this is shared out over the threads chunk by chunk.
constexpr int kLongRow = 2 * kChunk;

// Queries of a tile of rows; a multiple of what the matrix kernel takes at once.
constexpr int kQueriesAtOnce = 24;

bool scores(const Span& span) {
  const RetentionMode mode = span.retention->mode;
  return mode == RetentionMode::score || mode == RetentionMode::hook;
}

// The oldest of the tokens with the lowest score among those that may go.
int find_victim(const RowKernels& kernels, const HeadCache& head, const Evictable& evictable, float lowest) {
  int victim = -1;
  for (int c = 0; c * kChunk < head.used && std::isfinite(lowest); ++c) {
    const int slots = static_cast<int>(round_up(std::min(kChunk, head.used - c * kChunk), kTile));
    const int found =
        kernels.find_score(head.chunks[static_cast<std::size_t>(c)], slots, lowest,
                           static_cast<std::int32_t>(evictable.first), static_cast<std::int32_t>(evictable.last));
    if (found < 0) continue;
    if (victim < 0 || head.position(c * kChunk + found) < head.position(victim)) victim = c * kChunk + found;
  }
  return victim;
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

Attention::Attention(ThreadPool& pool, const RowKernels& kernels)
    : pool_(pool),
      kernels_(kernels),
      flights_(static_cast<std::size_t>(pool.threads())),
      handed_over_(std::make_unique<std::atomic<bool>[]>(flights_.size())) {}

void Attention::begin(const Step& step, std::span<const RopeTable> ropes) {
  step_ = &step;
  status_ = {};
  rotations_.resize(ropes.size());
  for (std::size_t i = 0; i < ropes.size(); ++i) rotations_[i].prepare(step, ropes[i]);
}

void Attention::attend(const AttendArgs& args) {
  if (!status_) return;
  flights_.resize(std::max(flights_.size(), static_cast<std::size_t>(args.kv_heads)));
  chains_.clear();
  for (const Span& span : step_->spans) {
    const RetentionMode mode = span.retention->mode;
    if (mode == RetentionMode::hook) {
      attend_hooked(args, span);
    } else if (span.rows == 1 && span.cache->head(args.layer, 0).used > kLongRow && args.window == 0 &&
               mode != RetentionMode::ideal) {
      attend_long_row(args, span);
    } else if (span.rows > 1 && args.window == 0 && (!scores(span) || span.in_prompt)) {
      attend_all_rows(args, span);
    } else {
      add_chains(args, span);
    }
  }
  attend_chains(args);
}

void Attention::rotate(const AttendArgs& args, int row, float* head) const {
  const Rotations& r = rotations_[static_cast<std::size_t>(args.rope)];
  const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(row) * r.pairs;
  kernels_.rotate(head, r.cosine.data() + first, r.sine.data() + first, r.pairs, r.interleaved);
}

// So many that their weights of a chunk stay in the first level cache.
int Attention::rows_at_once(const AttendArgs& args) const {
  return std::max(1, kQueriesAtOnce / (args.heads / args.kv_heads));
}

// Step 0.
void Attention::expire(const AttendArgs& args, const Span& span, int row, int kv_head) const {
  const std::int64_t now = span.first_position + row;
  free_expired(span.cache->head(args.layer, kv_head), args.window, now,
               [&](int slot) { release(args, span, now, kv_head, slot); });
}

// Step 1: the tokens' rotated keys and their values go into free slots.
void Attention::append(const AttendArgs& args, const Span& span, Rows rows, int kv_head) {
  HeadCache& head = span.cache->head(args.layer, kv_head);
  for (int row = rows.first; row < rows.end(); ++row) {
    float* key = args.k.row(span.first_row + row) + kv_head * args.head_dim;
    const float* value = args.v.row(span.first_row + row) + kv_head * args.head_dim;
    rotate(args, span.first_row + row, key);
    const int slot = head.claim(static_cast<std::int32_t>(span.first_position + row));
    kernels_.store(head.chunk_of(slot), head.type, slot % kChunk, head.dim, args.head_dim, key, value);
  }
}

void Attention::start(const AttendArgs& args, const Span& span, Rows rows, int kv_head, int slots, bool keep,
                      RowsInFlight& flight) const {
  const QueryGroup group{args.heads / args.kv_heads, args.head_dim, args.scale};
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

// Step 2, of rows of one head that are there already.
void Attention::attend_rows(const AttendArgs& args, const Span& span, Rows rows, int kv_head, int slots,
                            RowsInFlight& flight) const {
  const bool is_ideal = span.retention->mode == RetentionMode::ideal;
  start(args, span, rows, kv_head, slots, scores(span) || is_ideal, flight);
  if (is_ideal) {
    flight.run_ideal(span.retention->rule(args.layer, kv_head).budget);
  } else {
    flight.run();
  }
  finish(args, span, rows, kv_head, flight);
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
  evict(args, span, last, kv_head, lowest);
}

void Attention::add_chains(const AttendArgs& args, const Span& span) {
  for (int h = 0; h < args.kv_heads; ++h) {
    const HeadCache& head = span.cache->head(args.layer, h);
    const std::int64_t slots =
        head.limit == 0 ? head.used + span.rows : std::min<std::int64_t>(head.limit, head.used + span.rows);
    chains_.push_back({&span, h, chains_.empty() ? 0 : chains_.back().end(), slots + kTile});
  }
}

// The line of all chains is cut into equal shares, one per thread. A chain that is cut belongs to two of them: the
// first begins with its first rows, the second ends with the others, by which time the first has long handed it over.
void Attention::attend_chains(const AttendArgs& args) {
  if (chains_.empty()) return;
  std::int64_t share = (chains_.back().end() + pool_.threads() - 1) / pool_.threads();
  for (const Chain& chain : chains_) share = std::max(share, chain.end() - chain.begin);
  const auto shares = static_cast<int>((chains_.back().end() + share - 1) / share);
  for (int i = 0; i < shares; ++i) handed_over_[static_cast<std::size_t>(i)].store(false, std::memory_order_relaxed);
  pool_.run(shares, [&](int task, int worker) {
    // The first row whose begin is not before `at`.
    const auto row_at = [](const Chain& chain, std::int64_t at) {
      const std::int64_t row = (at - chain.begin + chain.row_cost - 1) / chain.row_cost;
      return static_cast<int>(std::clamp<std::int64_t>(row, 0, chain.span->rows));
    };
    for (auto chain = chains_.rbegin(); chain != chains_.rend(); ++chain) {
      const int first = row_at(*chain, task * share), end = row_at(*chain, (task + 1) * share);
      if (first == end) continue;
      if (first > 0) {
        while (!handed_over_[static_cast<std::size_t>(task - 1)].load(std::memory_order_acquire))
          std::this_thread::yield();
      }
      attend_in_order(args, *chain->span, {first, end - first}, chain->kv_head,
                      flights_[static_cast<std::size_t>(worker)]);
      if (end < chain->span->rows) handed_over_[static_cast<std::size_t>(task)].store(true, std::memory_order_release);
    }
  });
}

// The rows that can be attended to together: nothing goes before the last of them.
int Attention::rows_until_eviction(const AttendArgs& args, const Span& span, int row, int kv_head) const {
  const int rows = std::min(rows_at_once(args), span.rows - row);
  if (args.window > 0 || span.retention->mode == RetentionMode::ideal) return 1;
  if (!scores(span) || span.in_prompt) return rows;
  const std::int64_t limit = span.retention->rule(args.layer, kv_head).budget + span.retention->block;
  return static_cast<int>(std::clamp<std::int64_t>(limit - span.cache->head(args.layer, kv_head).occupied(), 1, rows));
}

// The paper's algorithm for one KV head: append, attend, score, evict, token by token or block by block.
void Attention::attend_in_order(const AttendArgs& args, const Span& span, Rows rows, int kv_head,
                                RowsInFlight& flight) {
  HeadCache& head = span.cache->head(args.layer, kv_head);
  for (int row = rows.first; row < rows.end();) {
    expire(args, span, row, kv_head);
    const Rows block{row, std::min(rows_until_eviction(args, span, row, kv_head), rows.end() - row)};
    append(args, span, block, kv_head);
    attend_rows(args, span, block, kv_head, head.used, flight);
    score_and_evict(args, span, block, kv_head, flight);
    row = block.end();
  }
}

// Nothing is evicted before the last row: rows are independent once all keys are there, but for the scores, which are
// updated in order.
void Attention::attend_all_rows(const AttendArgs& args, const Span& span) {
  first_slots_.resize(static_cast<std::size_t>(args.kv_heads));
  pool_.run(args.kv_heads, [&](int h, int) {
    first_slots_[static_cast<std::size_t>(h)] = span.cache->head(args.layer, h).used;
    append(args, span, {0, span.rows}, h);
  });
  const int at_once = span.retention->mode == RetentionMode::ideal ? 1 : rows_at_once(args);
  const int tiles = (span.rows + at_once - 1) / at_once;
  const auto rows_of = [&](int tile) { return Rows{tile * at_once, std::min(at_once, span.rows - tile * at_once)}; };
  const auto attend_tile = [&](int tile, int h, RowsInFlight& flight) {
    const int slots = first_slots_[static_cast<std::size_t>(h)] + rows_of(tile).end();
    attend_rows(args, span, rows_of(tile), h, slots, flight);
  };
  if (!scores(span)) {
    pool_.run(tiles * args.kv_heads, [&](int task, int worker) {
      attend_tile(task / args.kv_heads, task % args.kv_heads, flights_[static_cast<std::size_t>(worker)]);
    });
    return;
  }
  // As many tiles at a time as there are flights to keep their weights.
  const int count = tiles * args.kv_heads, wave = static_cast<int>(flights_.size());
  for (int begin = 0; begin < count; begin += wave) {
    const int end = std::min(begin + wave, count);
    pool_.run(end - begin, [&](int i, int) {
      attend_tile((begin + i) / args.kv_heads, (begin + i) % args.kv_heads, flights_[static_cast<std::size_t>(i)]);
    });
    pool_.run(args.kv_heads, [&](int h, int) {
      for (int i = 0; i < end - begin; ++i) {
        if ((begin + i) % args.kv_heads != h) continue;
        score_and_evict(args, span, rows_of((begin + i) / args.kv_heads), h, flights_[static_cast<std::size_t>(i)]);
      }
    });
  }
}

// One row over many slots: its chunks are shared out over the threads.
void Attention::attend_long_row(const AttendArgs& args, const Span& span) {
  const auto flight = [&](int h) -> RowsInFlight& { return flights_[static_cast<std::size_t>(h)]; };
  pieces_.clear();
  for (int h = 0; h < args.kv_heads; ++h) {
    append(args, span, {0, 1}, h);
    start(args, span, {0, 1}, h, span.cache->head(args.layer, h).used, true, flight(h));
    for (int c = 0; c < flight(h).chunks(); ++c) pieces_.push_back({h, c});
  }
  pool_.run(static_cast<int>(pieces_.size()), [&](int i, int) {
    const Piece piece = pieces_[static_cast<std::size_t>(i)];
    flight(piece.kv_head).weigh(piece.chunk);
    flight(piece.kv_head).add_values(piece.chunk);
  });
  pool_.run(args.kv_heads, [&](int h, int) {
    flight(h).normalise();
    finish(args, span, {0, 1}, h, flight(h));
    score_and_evict(args, span, {0, 1}, h, flight(h));
  });
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
void Attention::evict(const AttendArgs& args, const Span& span, int row, int kv_head, float lowest) const {
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
  const int victim = find_victim(kernels_, head, evictable, lowest);
  if (victim >= 0) release(args, span, now, kv_head, victim);
}

// A hook sees the whole layer after each row, so rows are outermost and heads come one after the other.
void Attention::attend_hooked(const AttendArgs& args, const Span& span) {
  for (int row = 0; row < span.rows && status_; ++row) {
    pool_.run(args.kv_heads, [&](int h, int) {
      RowsInFlight& flight = flights_[static_cast<std::size_t>(h)];
      expire(args, span, row, h);
      append(args, span, {row, 1}, h);
      attend_rows(args, span, {row, 1}, h, span.cache->head(args.layer, h).used, flight);
      score_and_evict(args, span, {row, 1}, h, flight);
    });
    call_hook(args, span, row);
  }
}

}  // namespace a2sf::cpu
