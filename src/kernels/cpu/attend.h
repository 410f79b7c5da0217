// Attention over the retained slots, fused with score and eviction, on the CPU.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/cpu/rows_in_flight.h"
#include "kernels/host_activations.h"
#include "kernels/span_failures.h"

namespace a2sf::cpu {

using AttendArgs = HostAttendArgs;

// Rotations of the rows of a step by one table: computed once, used by every layer of that table.
struct Rotations {
  std::vector<float> cosine, sine;  // [row][pair]
  int pairs = 0;
  bool interleaved = true;

  void prepare(const Step& step, const RopeTable& rope);
};

// A single row over more slots than this is shared out over the threads chunk by chunk.
inline constexpr int kLongRow = 2 * kChunk;

// Whether the span's rows update the scores.
inline bool scores(const Span& span) {
  return span.retention->mode == RetentionMode::score || span.retention->mode == RetentionMode::hook;
}

class Attention {
 public:
  // Sequences that fail are reported to `failures`, and left out from there on.
  Attention(ThreadPool& pool, const RowKernels& kernels, SpanFailures& failures);
  // Makes room for the step: attend() allocates nothing but for hooks. May throw std::bad_alloc, and is then called
  // again for another step.
  void begin(const Step& step, const ModelShape& shape);
  void attend(const AttendArgs& args);

 private:
  // Rows of a span.
  struct Rows {
    int first, count;
    int end() const { return first + count; }
  };
  // The rows of one KV head that must be processed in order. All chains of a step lie on a line, one after the other,
  // as long as they take.
  struct Chain {
    const Span* span;
    int kv_head;
    std::int64_t begin, row_cost;
    std::int64_t end() const { return begin + span->rows * row_cost; }
  };
  struct Piece {
    int kv_head, chunk;
  };

  static int rows_at_once(int group);
  void reserve(const Span& span, int heads);
  int rows_until_eviction(const AttendArgs& args, const Span& span, int row, int kv_head) const;
  void rotate(const AttendArgs& args, int row, float* head) const;
  void expire(const AttendArgs& args, const Span& span, int row, int kv_head) const;
  bool append(const AttendArgs& args, const Span& span, Rows rows, int kv_head);
  void start(const AttendArgs& args, const Span& span, Rows rows, int kv_head, int slots, bool keep,
             RowsInFlight& flight) const;
  void finish(const AttendArgs& args, const Span& span, Rows rows, int kv_head, RowsInFlight& flight) const;
  static const std::byte* read_next(const AttendArgs& args, const Span& span, Rows rows, int kv_head);
  bool is_finite(const AttendArgs& args, const Span& span, Rows rows, int kv_head, int bad_row) const;
  bool attend_rows(const AttendArgs& args, const Span& span, Rows rows, int kv_head, int slots,
                   RowsInFlight& flight) const;
  void score_and_evict(const AttendArgs& args, const Span& span, Rows rows, int kv_head, RowsInFlight& flight) const;

  void add_chains(const AttendArgs& args, const Span& span);
  void attend_chains(const AttendArgs& args);
  void attend_in_order(const AttendArgs& args, const Span& span, Rows rows, int kv_head, RowsInFlight& flight);
  void attend_all_rows(const AttendArgs& args, const Span& span, Rows rows);
  void attend_windowed(const AttendArgs& args, const Span& span);
  void attend_long_row(const AttendArgs& args, const Span& span);
  void attend_hooked(const AttendArgs& args, const Span& span);
  Status call_hook(const AttendArgs& args, const Span& span, int row);
  void evict(const AttendArgs& args, const Span& span, int row, int kv_head, float lowest,
             std::vector<int>& victims) const;
  void release(const AttendArgs& args, const Span& span, std::int64_t now, int kv_head, int slot) const;

  ThreadPool& pool_;
  const RowKernels& kernels_;
  SpanFailures& failures_;
  const Step* step_ = nullptr;
  std::vector<Rotations> rotations_;   // one per RoPE table of the step
  std::vector<RowsInFlight> flights_;  // one per worker, or per KV head where a row is shared out
  // Kept from layer to layer, so that nothing is allocated in a steady state.
  std::vector<Chain> chains_;
  std::unique_ptr<std::atomic<bool>[]> handed_over_;  // [share]
  std::vector<int> first_slots_;                      // [KV head]
  std::vector<Piece> pieces_;
};

}  // namespace a2sf::cpu
