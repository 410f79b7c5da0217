// A tile of queries: attention for some consecutive rows of one KV head.
#pragma once

#include <span>
#include <vector>

#include "kernels/cpu/recall.h"
#include "kernels/cpu/row_kernels.h"
#include "policy/retention.h"

namespace a2sf::cpu {

// The query heads that share a KV head.
struct QueryGroup {
  int heads, head_dim;
  float scale;  // of the logits
  int window;   // a row sees so many of the newest tokens; 0: all
};

// As in FlashAttention, but the slots are cut into partitions of one chunk each, as in FlashDecoding. Per partition and
// query: logits, softmax numerators relative to the partition's largest logit, their sum, and the values they weigh.
// normalise() brings the partitions to one largest logit, in order. So a chunk is read once for all rows, partitions
// may be computed by different threads, and the bytes of a row depend on neither.
class QueryTile {
 public:
  // Makes room for tiles of so many queries over so many slots of a padded dim, with or without `keep`. May throw
  // std::bad_alloc; what was there stays.
  void reserve(std::int64_t queries, std::int64_t slots, std::int64_t dim, bool keep);
  // `count` rows from position `first` on, over the slots [0, slots) of the head; causal and window masks go by the
  // positions in the slots. With `keep`, the numerators of every partition stay until the next start: score()
  // and the like need them. Needs reserve() of as much.
  void start(const RowKernels& kernels, HeadCache& head, const QueryGroup& group, std::int64_t first, int count,
             int slots, bool keep);
  const float* query(int row, int head) const { return queries_.data() + query_index(row, head) * head_->dim(); }
  float* query(int row, int head) { return queries_.data() + query_index(row, head) * head_->dim(); }  // [padded dim]
  std::span<float> key() { return key_; }  // [padded dim]: room to rotate a key in
  int partitions() const { return (slots_ + kChunk - 1) / kChunk; }
  const Chunk& chunk(int partition) const { return head_->chunks()[static_cast<std::size_t>(partition)]; }

  void compute_numerators(int partition);
  // Needs the numerators. Meanwhile it prefetches `next`, which is read afterwards (nullptr: nothing).
  void weigh_values(int partition, const std::byte* next);
  // Needs the numerators of all partitions, and comes before anything below. Returns the first row with a logit that is
  // not finite, -1 if there is none; that row and those after it have no results.
  int normalise();
  int run(const std::byte* next);      // all of these, of all partitions; `next` as above
  int run_ideal(std::int64_t budget);  // the same, over the subset that the oracle keeps

  void write(int row, float* out) const;  // [heads of the group][head dim]
  // Updates the head's scores; returns the lowest one (times weight) that may be evicted, infinity if none may.
  float score(int row, const ScoreUpdate& update);
  void read_probabilities(int row, int head, std::span<float> out) const;  // [slot]
  // The softmax of a query over a slot's logit x is 2^(x - log_sum), x to base 2.
  float log_sum(int row, int head) const;
  float group_probability(int row, int slot) const;      // summed over the group
  float addition(int row, int slot, bool raised) const;  // to the slot's score: likewise of p, or of p^1.5
  float last_row_probability(int slot) const { return group_probability(count_ - 1, slot); }
  std::vector<int>& victims() { return victims_; }  // room for the choice of what is evicted after these rows
  Recall& recall() { return recall_; }              // likewise, of what comes back before a row

 private:
  void hide_from_ideal(int row, std::int64_t budget);
  std::ptrdiff_t query_index(int row, int head) const { return row * group_.heads + head; }
  std::ptrdiff_t queries() const { return static_cast<std::ptrdiff_t>(count_) * group_.heads; }
  int slots_of(int partition) const;  // rounded up to whole tiles
  float* numerators(int partition) { return numerators_.data() + (keep_ ? partition * queries() * kChunk : 0); }
  const float* numerators(int partition) const {
    return numerators_.data() + (keep_ ? partition * queries() * kChunk : 0);
  }

  const RowKernels* kernels_ = nullptr;
  HeadCache* head_ = nullptr;
  QueryGroup group_{};
  std::int64_t first_ = 0;
  int count_ = 0, slots_ = 0;
  bool keep_ = false;
  std::vector<float> queries_;                   // [query][padded dim]
  std::vector<float> key_;                       // [padded dim]
  std::vector<float> numerators_;                // [partition, or one for all][query][kChunk]
  std::vector<float> values_;                    // [partition][query][padded dim]: weighed by the numerators
  std::vector<float> largest_, sums_, factors_;  // [partition][query]; numerator * factor is the probability
  std::vector<int> victims_;
  Recall recall_;
};

}  // namespace a2sf::cpu
