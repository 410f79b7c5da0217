// Some consecutive rows of one KV head on their way through attention.
#pragma once

#include <span>
#include <vector>

#include "kernels/cpu/row_kernels.h"
#include "policy/retention.h"

namespace a2sf::cpu {

// The query heads that share a KV head.
struct QueryGroup {
  int heads, head_dim;
  float scale;  // of the logits
  int window;   // a row sees so many of the newest tokens; 0: all
};

// Every query of every row of a tile is treated alike: logits, their exponentials relative to the largest of the chunk,
// and the values they weigh, chunk by chunk, then the sum over the chunks in order. So a chunk is read once for all
// rows, chunks may be computed by different threads, and the bytes of a row depend on neither.
class RowsInFlight {
 public:
  // Makes room for tiles of so many queries over so many slots of a padded dim, with or without `keep`. May throw
  // std::bad_alloc; what was there stays.
  void reserve(std::int64_t queries, std::int64_t slots, std::int64_t dim, bool keep);
  // `count` rows from position `first` on, over the first `slots` slots of the head; a row sees those with positions up
  // to its own, within the window. With `keep`, the weights of every chunk stay until the next start: score() and the
  // like need them. Needs reserve() of as much.
  void start(const RowKernels& kernels, HeadCache& head, const QueryGroup& group, std::int64_t first, int count,
             int slots, bool keep);
  float* query(int row, int head) { return queries_.data() + query_index(row, head) * head_->dim(); }  // [padded dim]
  int chunks() const { return (slots_ + kChunk - 1) / kChunk; }
  const Chunk& chunk(int c) const { return head_->chunks()[static_cast<std::size_t>(c)]; }

  void weigh(int chunk);  // the exponentials
  // Needs weigh(). Meanwhile `next`, what will be read after it, is asked for (nullptr: nothing).
  void add_values(int chunk, const std::byte* next);
  // Needs all chunks weighed; before anything below. Returns the first row with a logit that is not finite, -1 if there
  // is none; rows from there on are of no use.
  int normalise();
  int run(const std::byte* next);      // all of these, of all chunks; `next` as above
  int run_ideal(std::int64_t budget);  // the same of the oracle's subset

  void write(int row, float* out) const;  // [heads of the group][head dim]
  // Updates the head's scores; returns the lowest one that may be evicted, infinity if none may.
  float score(int row, float alpha, const Evictable& evictable);
  void read_probabilities(int row, int head, std::span<float> out) const;  // [slot]
  std::vector<int>& victims() { return victims_; }  // room for the choice of what goes after these rows

 private:
  void hide_from_ideal(int row, std::int64_t budget);
  std::ptrdiff_t query_index(int row, int head) const { return row * group_.heads + head; }
  std::ptrdiff_t queries() const { return static_cast<std::ptrdiff_t>(count_) * group_.heads; }
  int slots_of(int chunk) const;  // rounded up to whole tiles
  float* weights(int chunk) { return weights_.data() + (keep_ ? chunk * queries() * kChunk : 0); }
  const float* weights(int chunk) const { return weights_.data() + (keep_ ? chunk * queries() * kChunk : 0); }

  const RowKernels* kernels_ = nullptr;
  HeadCache* head_ = nullptr;
  QueryGroup group_{};
  std::int64_t first_ = 0;
  int count_ = 0, slots_ = 0;
  bool keep_ = false;
  std::vector<float> queries_;                   // [query][padded dim]
  std::vector<float> weights_;                   // [chunk, or one for all][query][kChunk]
  std::vector<float> values_;                    // [chunk][query][padded dim]: weighed, not yet normalised
  std::vector<float> largest_, sums_, factors_;  // [chunk][query]; weight * factor is the probability
  std::vector<int> victims_;
};

}  // namespace a2sf::cpu
