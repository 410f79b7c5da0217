// Attention over the retained slots, fused with score and eviction, on the CPU: how the rows and KV heads of a step are
// divided among the threads.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/cpu/head_task.h"
#include "kernels/cpu/schedule.h"
#include "kernels/host/watch.h"

namespace a2sf::cpu {

class Attention {
 public:
  // Sequences that fail are reported to `failures` and left out from then on.
  Attention(ThreadPool& pool, const RowKernels& kernels, SpanFailures& failures);
  // Makes room for the step: attend() allocates nothing but for hooks and observers. May throw std::bad_alloc, and is
  // then called again for another step.
  void begin(const Step& step, const ModelShape& shape);
  void attend(const AttendArgs& args);

 private:
  // Rows of one KV head that must be processed in order. The chains of a step are laid end to end: begin and end are in
  // units of cost.
  struct Chain {
    const Span* span;
    int kv_head;
    std::int64_t begin, row_cost;
    std::int64_t end() const { return begin + span->rows * row_cost; }
  };
  struct Partition {
    int kv_head, index;
  };

  void reserve(const Span& span, int heads);
  void prepare_shadows(const Step& step, const ModelShape& shape);
  void attend_spans(const AttendArgs& args, std::span<const Span> spans);
  void attend_shadows(const AttendArgs& args);
  void add_chains(const LayerTask& layer, const Span& span);
  void run_chains(const LayerTask& layer);
  void run_side_by_side(const LayerTask& layer, const Span& span, Rows rows, const LayerFacts& facts);
  void run_prompt(const LayerTask& layer, const Span& span, const LayerFacts& facts);
  void run_in_ring(const LayerTask& layer, const Span& span, const LayerFacts& facts);
  void run_over_partitions(const LayerTask& layer, const Span& span);
  void run_watched(const LayerTask& layer, const Span& span);
  Status watch_rows(const LayerTask& layer, const Span& span, Rows rows);
  QueryTile& tile(int i) { return tiles_[static_cast<std::size_t>(i)]; }

  ThreadPool& pool_;
  const RowKernels& kernels_;
  SpanFailures& failures_;
  const Step* step_ = nullptr;
  std::vector<Rotations> rotations_;  // one per RoPE table of the step
  std::vector<QueryTile> tiles_;      // one per worker, or per KV head where a row is split over the threads
  QueryTile looked_at_;               // computes the probabilities that a hook asks for
  // They keep their memory from step to step, so that nothing is allocated in the steady state.
  std::vector<Chain> chains_;
  std::unique_ptr<std::atomic<bool>[]> handed_over_;  // [share]
  std::vector<int> first_slots_;                      // [KV head]: the high-water mark before the rows are appended
  std::vector<float> lowest_;                         // [KV head]: the lowest score that may be evicted
  std::vector<Partition> partitions_;
  std::vector<Span> shadows_;             // the same rows, in the shadows' stores
  std::vector<const Shadow*> shadow_of_;  // [shadow]
  std::vector<float> shadow_out_;         // [row][query head][head dim]
};

}  // namespace a2sf::cpu
