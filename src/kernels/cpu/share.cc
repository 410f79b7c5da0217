// How the rows and KV heads of a step are shared out over the threads.
#include <algorithm>
#include <thread>

#include "kernels/cpu/attend.h"

namespace a2sf::cpu {

void Attention::attend(const AttendArgs& args) {
  chains_.clear();
  for (const Span& span : step_->spans) {
    if (failures_.failed(span)) continue;
    const RetentionMode mode = span.retention->mode;
    if (mode == RetentionMode::hook) {
      attend_hooked(args, span);
    } else if (span.rows == 1 && span.cache->head(args.layer, 0).used() > kLongRow && args.window == 0 &&
               mode != RetentionMode::ideal) {
      attend_long_row(args, span);
    } else if (span.rows > 1 && args.window == 0 && (!scores(span) || span.in_prompt)) {
      attend_all_rows(args, span, {0, span.rows});
    } else if (span.rows > 1 && mode == RetentionMode::all && span.cache->head(args.layer, 0).is_ring()) {
      attend_windowed(args, span);
    } else {
      add_chains(args, span);
    }
  }
  attend_chains(args);
}

void Attention::add_chains(const AttendArgs& args, const Span& span) {
  for (int h = 0; h < args.kv_heads; ++h) {
    const HeadCache& head = span.cache->head(args.layer, h);
    const std::int64_t slots = head.most_used(span.rows);
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

// The ring has room for so many tokens beside the window: those that leave it meanwhile are hidden from the rows that
// no longer see them.
void Attention::attend_windowed(const AttendArgs& args, const Span& span) {
  for (int first = 0; first < span.rows; first += kWindowRows) {
    const Rows rows{first, std::min(kWindowRows, span.rows - first)};
    attend_all_rows(args, span, rows);
    if (failures_.failed(span)) return;
    pool_.run(args.kv_heads, [&](int h, int) {
      for (int row = rows.first; row < rows.end(); ++row) expire(args, span, row, h);
    });
  }
}

// Nothing is evicted before the last row: rows are independent once all keys are there, but for the scores, which are
// updated in order.
void Attention::attend_all_rows(const AttendArgs& args, const Span& span, Rows rows) {
  pool_.run(args.kv_heads, [&](int h, int) {
    first_slots_[static_cast<std::size_t>(h)] = span.cache->head(args.layer, h).used();
    append(args, span, rows, h);
  });
  if (failures_.failed(span)) return;
  const int at_once = span.retention->mode == RetentionMode::ideal ? 1 : rows_at_once(args.heads / args.kv_heads);
  const int tiles = (rows.count + at_once - 1) / at_once;
  const auto rows_of = [&](int tile) {
    return Rows{rows.first + tile * at_once, std::min(at_once, rows.count - tile * at_once)};
  };
  const auto attend_tile = [&](int tile, int h, RowsInFlight& flight) {
    const HeadCache& head = span.cache->head(args.layer, h);
    const int slots =
        head.is_ring() ? head.used() : first_slots_[static_cast<std::size_t>(h)] + rows_of(tile).end() - rows.first;
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
    if (failures_.failed(span)) return;
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
    if (!append(args, span, {0, 1}, h)) return;
    start(args, span, {0, 1}, h, span.cache->head(args.layer, h).used(), true, flight(h));
    for (int c = 0; c < flight(h).chunks(); ++c) pieces_.push_back({h, c});
  }
  pool_.run(static_cast<int>(pieces_.size()), [&](int i, int) {
    const Piece piece = pieces_[static_cast<std::size_t>(i)];
    flight(piece.kv_head).weigh(piece.chunk);
    const Piece* next = i + 1 < static_cast<int>(pieces_.size()) ? &pieces_[static_cast<std::size_t>(i + 1)] : nullptr;
    flight(piece.kv_head)
        .add_values(piece.chunk, next == nullptr ? nullptr : flight(next->kv_head).chunk(next->chunk).keys);
  });
  pool_.run(args.kv_heads, [&](int h, int) {
    if (!is_finite(args, span, {0, 1}, h, flight(h).normalise())) return;
    finish(args, span, {0, 1}, h, flight(h));
    score_and_evict(args, span, {0, 1}, h, flight(h));
  });
}

// A hook sees the whole layer after each row, so rows are outermost and heads come one after the other.
void Attention::attend_hooked(const AttendArgs& args, const Span& span) {
  for (int row = 0; row < span.rows && !failures_.failed(span); ++row) {
    pool_.run(args.kv_heads, [&](int h, int) {
      RowsInFlight& flight = flights_[static_cast<std::size_t>(h)];
      expire(args, span, row, h);
      const HeadCache& head = span.cache->head(args.layer, h);
      if (append(args, span, {row, 1}, h) && attend_rows(args, span, {row, 1}, h, head.used(), flight))
        score_and_evict(args, span, {row, 1}, h, flight);
    });
    if (failures_.failed(span)) return;
    if (auto called = call_hook(args, span, row); !called) failures_.report_hook(span, std::move(called.error()));
  }
}

}  // namespace a2sf::cpu
