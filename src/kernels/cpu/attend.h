// Attention over the retained slots, fused with score and eviction, on the CPU.
#pragma once

#include <vector>

#include "core/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/row_kernels.h"

namespace a2sf::cpu {

// Rotations of the rows of a step by one table: computed once, used by every layer of that table.
struct Rotations {
  std::vector<float> cosine, sine;  // [row][pair]
  int pairs = 0;
  bool interleaved = true;

  void prepare(const Step& step, const RopeTable& rope);
  void apply(std::int64_t row, float* head) const;
};

// One row of one KV head in flight. The steps are methods so that a long row can be shared out over threads chunk by
// chunk: partial sums are always per chunk and added in order, so the bytes do not depend on who computes them.
class RowInFlight {
 public:
  // Buffers grow as needed and are kept for the next row.
  void start(const RowKernels& kernels, const HeadCache& head, int group, float scale, const float* q, int head_dim);
  // Only the first `used` slots exist for this row.
  void limit_to(int used) { slots_ = round_up(used, kTile); }
  int chunks() const;
  void compute_logits(int chunk);
  void hide_free_slots(int used);                               // and every slot from `used` on
  void normalise(float alpha, HeadCache* scored);               // softmax; updates the scores if `scored` is given
  void keep_ideal(std::int64_t budget, std::int64_t position);  // after normalise: the oracle's subset, renormalised
  void compute_values(int chunk);
  void write(float* out) const;  // [group][head_dim]

  const float* probabilities(int query_head) const { return logits_.data() + query_head * stride_; }
  const float* queries() const { return q_.data(); }  // [group][padded dim]

 private:
  int slots_of(int chunk) const;  // in use, rounded up to whole tiles

  const RowKernels* kernels_ = nullptr;
  const HeadCache* head_ = nullptr;
  int group_ = 0, head_dim_ = 0;
  std::int64_t stride_ = 0, slots_ = 0;
  float scale_ = 1;
  std::vector<float> q_;        // [group][dim]
  std::vector<float> logits_;   // [group][stride]: logits, then probabilities
  std::vector<float> partial_;  // [chunk][group][dim]
  std::vector<float> inverse_;
};

class Attention {
 public:
  Attention(ThreadPool& pool, const RowKernels& kernels)
      : pool_(pool), kernels_(kernels), rows_(static_cast<std::size_t>(pool.threads())) {}
  void begin(const Step& step, std::span<const RopeTable> ropes);
  void attend(const AttendArgs& args);
  Status status() const { return status_; }

 private:
  const Rotations& rotations(const AttendArgs& args) const { return rotations_[static_cast<std::size_t>(args.rope)]; }
  void append(const AttendArgs& args, const Span& span, int row, int kv_head);
  void attend_in_order(const AttendArgs& args, const Span& span, int kv_head, RowInFlight& flight);
  void attend_all_rows(const AttendArgs& args, const Span& span);
  void attend_long_row(const AttendArgs& args, const Span& span);
  void attend_hooked(const AttendArgs& args, const Span& span);
  void start(const AttendArgs& args, const Span& span, int row, int kv_head, RowInFlight& flight) const;
  float* out(const AttendArgs& args, int row, int kv_head) const;
  void evict(const AttendArgs& args, const Span& span, int row, int kv_head) const;
  void free_expired(const AttendArgs& args, const Span& span, int row, int kv_head) const;
  void release(const AttendArgs& args, const Span& span, std::int64_t now, int kv_head, int slot) const;
  void call_hook(const AttendArgs& args, const Span& span, int row);

  ThreadPool& pool_;
  const RowKernels& kernels_;
  const Step* step_ = nullptr;
  std::vector<Rotations> rotations_;  // one per RoPE table of the step
  std::vector<RowInFlight> rows_;     // one per worker
  std::vector<RowInFlight> heads_;    // one per KV head, for rows shared out over threads
  Status status_;
};

}  // namespace a2sf::cpu
