// Masks: which tokens a row attends to under a policy, beside the ones that it should attend to (arXiv 2407.20485, the
// figures of sparsity, imbalance and mask shapes).
//
// Every sequence is read with the full cache, and each policy beside it in a shadow, so that all of them choose for the
// same queries, keys and values. A row's true probabilities p are those of the full cache, summed over the query heads
// of a group; its ideal mask is itself and the `budget` earlier tokens of highest p, of equal ones the newer. Compared
// are the rows that have more than `budget` earlier tokens: before that a policy keeps everything.
#pragma once

#include <a2sf/session.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace a2sf {

// Means over the rows that were compared, 0 to 1.
struct MaskMeans {
  std::size_t rows = 0;
  double cosine = 0;      // |kept and ideal| / sqrt(|kept| |ideal|)
  double jaccard = 0;     // |kept and ideal| / |kept or ideal|
  double mass = 0;        // share of p that the kept tokens have
  double ideal_mass = 0;  // that the ideal mask has
  double age = 0;         // of the kept tokens, over the row's position: 1 is the first token
};

// Shares by relative position, in bins of equal width from the oldest token to the row itself; empty: of nothing.
inline constexpr std::size_t kTiltBins = 20;
using Tilt = std::vector<double>;

// The tokens that one KV head held in each row of a sequence.
struct MaskPicture {
  int layer = 0, kv_head = 0;
  std::vector<std::vector<std::int32_t>> kept;  // [row]: positions, ascending
};

struct PolicyMasks {
  MaskMeans all;                              // of all heads together
  std::vector<std::vector<MaskMeans>> heads;  // [layer][kv head]
  Tilt slots;                                 // of the tokens that are kept
  Tilt scores;                                // of their accumulated scores A
  std::vector<MaskPicture> pictures;          // of the longest sequence: KV head 0 of the first, middle and last layer
};

struct MaskReport {
  // [layer][kv head]: the share of a row's tokens that have 95 % of its p, the likeliest first; the mean over all rows.
  std::vector<std::vector<double>> sparsity;
  Tilt attention;                     // of p
  std::vector<PolicyMasks> policies;  // as the specs
};

// Fails where a policy has no masks: one that keeps all of a prompt until its end.
Status check_has_masks(const PolicySpec& spec);

// Tokens read and to read; false cancels.
using MaskProgress = std::function<bool(std::size_t done, std::size_t total)>;

// The tilts are means over the last quarter of each sequence, where rows have most to choose from. The masks of an
// oracle are the ideal ones.
Result<MaskReport> analyse_masks(const std::shared_ptr<const Model>& model,
                                 std::span<const std::vector<std::int32_t>> sequences,
                                 std::span<const PolicySpec> specs, KvType kv_type, const MaskProgress& progress = {});

}  // namespace a2sf
