// The paper's algorithm for one KV head of one sequence in one layer: append, attend, score, evict.
#pragma once

#include <vector>

#include "kernels/cpu/query_tile.h"
#include "kernels/cpu/rotations.h"
#include "kernels/host/activations.h"
#include "kernels/host/spans.h"
#include "kernels/span_failures.h"

namespace a2sf::cpu {

using AttendArgs = HostAttendArgs;

// Rows of a span.
struct Rows {
  int first, count;
  int end() const { return first + count; }
  int last() const { return end() - 1; }
};

// What the heads of a layer share.
struct LayerTask {
  const AttendArgs& args;
  const RowKernels& kernels;
  const Rotations& rotations;
  SpanFailures& failures;

  int group() const { return args.heads / args.kv_heads; }
};

// Rows of a query tile: so many that their numerators of one partition stay in the L1 cache.
int rows_of_tile(int group);

// A view, made where it is needed. Threads may work on different heads at the same time. A step that fails reports it
// for the sequence and returns false.
class HeadTask {
 public:
  HeadTask(const LayerTask& layer, const Span& span, int kv_head);

  // All steps for these rows: token by token, or block by block.
  void run(Rows rows, QueryTile& tile) const;

  // How many rows from this one on can attend together: nothing is evicted before the last of them, and nothing
  // comes back but before the first.
  int rows_until_eviction(int row) const;
  // Step 0: frees the slots of what has left the row's window.
  void expire(int row) const;
  // Step 1: the tokens' rotated keys and their values go into free slots.
  bool append(Rows rows, QueryTile& tile) const;
  // Lets tokens of the cold tier come back, if they may before this row attends. It was appended, others after it too.
  void recall(int row, QueryTile& tile) const;
  // Step 2, for rows that were appended, over the slots [0, slots).
  bool attend(Rows rows, int slots, QueryTile& tile) const;
  // Step 3. Returns the lowest score that may be evicted after the last row.
  float score(Rows rows, QueryTile& tile) const;
  // Step 4, after a row, if an eviction is due.
  void evict(int row, float lowest, QueryTile& tile) const;

  // Step 2 in parts, for a row that is split over the threads.
  void start(Rows rows, int slots, bool keep, QueryTile& tile) const;
  bool finish(Rows rows, int bad_row, QueryTile& tile) const;
  // Remembers the queries of the rows that somebody wants to see.
  void keep_queries(Rows rows, QueryTile& tile) const;

  const HeadCache& head() const { return head_; }
  const HeadRule& rule() const { return rule_; }

 private:
  bool recalls_before(int row) const;
  // Whether tokens go after this row.
  bool evicts_after(int row) const;
  void evict_excess(int row, float lowest, QueryTile& tile) const;
  const std::byte* keys_to_prefetch(Rows rows) const;
  int find_victim(float lowest, const ScoreUpdate& update) const;
  void release(int row, int slot, QueryTile& tile) const;
  ScoreUpdate update_after(int row) const;

  const LayerTask& layer_;
  const Span& span_;
  int kv_head_;
  HostStore& store_;
  HeadCache& head_;
  const HeadRule& rule_;
};

}  // namespace a2sf::cpu
