// Shares of a budget as whole tokens.
#include <a2sf/profile.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "policy/budget.h"

namespace a2sf {
namespace {

using Table = std::vector<std::vector<double>>;

// One head's part of what is shared out.
struct Part {
  double share;
  bool has_least = false;  // it gets the least instead of its share
  std::int64_t tokens = 0;
  double remainder = 0;  // what rounding down took
};

// Shares relative to the largest, so that their sum cannot overflow.
std::vector<Part> parts_of(const Table& shares, const std::vector<LayerRange>& bounded) {
  double largest = 0;
  for (const auto& layer : shares) largest = std::max(largest, *std::max_element(layer.begin(), layer.end()));
  std::vector<Part> parts;
  for (std::size_t layer = 0; layer < shares.size(); ++layer) {
    if (!includes(bounded, static_cast<int>(layer))) continue;
    for (const double share : shares[layer]) parts.push_back({.share = share / largest});
  }
  return parts;
}

double sum_of_shares(const std::vector<Part>& parts) {
  double sum = 0;
  for (const Part& part : parts) sum += part.has_least ? 0 : part.share;
  return sum;
}

// Gives the least to every head whose share would be less, until none is: each leaves less to the others. Returns what
// is left for them.
std::int64_t give_least(std::vector<Part>& parts, std::int64_t total, std::int64_t least) {
  for (bool all_given = false; !all_given;) {
    all_given = true;
    const double shares = sum_of_shares(parts);
    const auto rest = static_cast<double>(total);
    for (Part& part : parts) {
      if (part.has_least || rest * part.share / shares >= static_cast<double>(least)) continue;
      part.has_least = true;
      part.tokens = least;
      total -= least;
      all_given = false;
    }
  }
  return total;
}

// Gives the others their shares of the rest: rounded down, then one more to the largest remainders.
void give_shares(std::vector<Part>& parts, std::int64_t rest) {
  const double shares = sum_of_shares(parts);
  std::vector<Part*> by_remainder;
  std::int64_t left = rest;
  for (Part& part : parts) {
    if (part.has_least) continue;
    const double exact = static_cast<double>(rest) * part.share / shares;
    part.tokens = static_cast<std::int64_t>(exact);
    part.remainder = exact - std::floor(exact);
    left -= part.tokens;
    by_remainder.push_back(&part);
  }
  std::stable_sort(by_remainder.begin(), by_remainder.end(),
                   [](const Part* a, const Part* b) { return a->remainder > b->remainder; });
  for (Part* part : by_remainder) {
    if (left-- > 0) ++part->tokens;
  }
}

}  // namespace

std::vector<std::vector<std::int64_t>> share_out(const Profile& profile, std::int64_t mean, std::int64_t least,
                                                 const std::vector<LayerRange>& bounded) {
  const Table& shares = profile.table_for(mean).shares;
  std::vector<Part> parts = parts_of(shares, bounded);
  give_shares(parts, give_least(parts, mean * std::ssize(parts), least));
  std::vector<std::vector<std::int64_t>> budgets;
  auto part = parts.begin();
  for (std::size_t layer = 0; layer < shares.size(); ++layer) {
    auto& row = budgets.emplace_back(shares[layer].size(), kKeepAll);
    if (!includes(bounded, static_cast<int>(layer))) continue;
    for (std::int64_t& budget : row) budget = (part++)->tokens;
  }
  return budgets;
}

}  // namespace a2sf
