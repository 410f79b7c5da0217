// PageRank over attention. The token of a query row has an edge to each token that it attends to, as heavy as the
// probability. TextRank (Mihalcea and Tarau 2004) ranks words so, with the same damping of 0.85, in a graph of words
// that occur near each other.
#pragma once

#include <a2sf/hook.h>

#include <vector>

namespace a2sf {

class AttentionRank {
 public:
  // [slot]: the rank of each token, up to a factor, over the last `rows` rows. Rows whose token has gone are skipped;
  // what free slots get has no meaning.
  //
  // A token without a row passes its rank on to all tokens evenly, as the random jump does. So ranks are in proportion
  // to y, with y(token) = 1 + d sum over rows of y(token of the row) p(row, token). Attention looks back only: the y of
  // the newest row's token is known first, then that of the row before, and one pass solves what PageRank iterates for.
  const std::vector<double>& compute(const HookLayer& layer, const HookHead& head, int rows) {
    constexpr double kDamping = 0.85;
    const auto slots = static_cast<std::size_t>(head.slots());
    ranks_.assign(slots, 1);
    for (int back = 0; back < rows; ++back) {
      const int own = slot_at(head, layer.position() - back);
      if (own < 0 || head.query(back, 0).empty()) continue;
      edges_.assign(slots, 0);
      for (int g = 0; g < head.group(); ++g) {
        const auto probabilities = head.probabilities(back, g);
        for (std::size_t slot = 0; slot < slots; ++slot) edges_[slot] += probabilities[slot];
      }
      // The token attends to itself too: what it passes to itself comes back as a geometric series.
      const double loop = kDamping * edges_[static_cast<std::size_t>(own)] / head.group();
      const double passed_on = kDamping * ranks_[static_cast<std::size_t>(own)] / (1 - loop) / head.group();
      for (std::size_t slot = 0; slot < slots; ++slot) ranks_[slot] += passed_on * edges_[slot];
    }
    return ranks_;
  }

 private:
  static int slot_at(const HookHead& head, std::int64_t position) {
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (position >= 0 && head.position(slot) == position) return slot;
    }
    return -1;
  }

  std::vector<double> ranks_, edges_;
};

}  // namespace a2sf
