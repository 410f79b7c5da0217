#include "kernels/reference/attend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "policy/recall.h"

namespace a2sf::reference {
namespace {

constexpr double kMostFloat = std::numeric_limits<float>::max();
constexpr double kNearTie = 1e-5;  // relative gap under which two implementations may differ

bool is_finite(std::span<const float> x) {
  return std::all_of(x.begin(), x.end(), [](float value) { return std::isfinite(value); });
}

double logit_of(const Row& row, std::span<const float> query, std::span<const float> key) {
  double dot = 0;
  for (std::size_t i = 0; i < key.size(); ++i) dot += static_cast<double>(query[i]) * key[i];
  return std::abs(dot * row.scale) <= kMostFloat ? dot * row.scale : NAN;
}

std::span<const float> query_of(const Row& row, int query_head) {
  const auto dim = static_cast<std::size_t>(row.head_dim);
  return row.q.subspan(static_cast<std::size_t>(query_head) * dim, dim);
}

// Softmax over the occupied slots that `visible` allows (empty: all). [slot], 0 elsewhere; NaN if a logit is not finite
// as a float.
std::vector<double> softmax_row(const Row& row, int query_head, const std::vector<char>& visible) {
  const HeadCache& head = *row.head;
  std::vector<double> p(static_cast<std::size_t>(head.used()), 0.0);
  std::vector<float> key(static_cast<std::size_t>(row.head_dim));
  const auto sees = [&](int slot) {
    return head.position(slot) >= 0 && (visible.empty() || visible[static_cast<std::size_t>(slot)] != 0);
  };
  double largest = -INFINITY, sum = 0;
  for (int slot = 0; slot < head.used(); ++slot) {
    if (!sees(slot)) continue;
    head.read_key(slot, key);
    const double logit = logit_of(row, query_of(row, query_head), key);
    p[static_cast<std::size_t>(slot)] = logit;
    largest = std::max(largest, logit);
  }
  for (int slot = 0; slot < head.used(); ++slot) {
    double& x = p[static_cast<std::size_t>(slot)];
    x = sees(slot) ? std::exp(x - largest) : 0;
    sum += x;
  }
  for (double& x : p) x /= sum;
  return p;
}

std::vector<std::vector<double>> softmax_group(const Row& row, const std::vector<char>& visible) {
  std::vector<std::vector<double>> p;
  for (int g = 0; g < row.group; ++g) p.push_back(softmax_row(row, g, visible));
  return p;
}

std::vector<double> sum_over_group(const std::vector<std::vector<double>>& p) {
  std::vector<double> sum(p.front().size(), 0.0);
  for (const auto& row : p) {
    for (std::size_t slot = 0; slot < sum.size(); ++slot) sum[slot] += row[slot];
  }
  return sum;
}

// The slots an oracle row sees, by the probabilities it would give to all of them.
std::vector<char> ideal_mask(const Row& row, const std::vector<double>& group_sum) {
  std::vector<char> mask(group_sum.size(), 1);
  const auto sum_of = [&](int slot) { return group_sum[static_cast<std::size_t>(slot)]; };
  std::vector<int> hidden;
  hidden_from_ideal(*row.head, row.position, row.rule->budget, sum_of, hidden);
  for (const int slot : hidden) mask[static_cast<std::size_t>(slot)] = 0;
  return mask;
}

// Of the softmax's denominator over all that the head holds, to base 2.
double log_sum(const Row& row, int query_head) {
  std::vector<float> key(static_cast<std::size_t>(row.head_dim));
  double sum = 0, largest = -INFINITY;
  for (const bool adds : {false, true}) {
    for (const int slot : row.head->slots_by_position()) {
      row.head->read_key(slot, key);
      const double logit = logit_of(row, query_of(row, query_head), key);
      if (adds) sum += std::exp(logit - largest);
      if (!adds) largest = std::max(largest, logit);
    }
  }
  return (largest + std::log(sum)) * std::numbers::log2e;
}

// What the row would add to the score of a cold token of this key, beside what the head holds.
double addition(const Row& row, std::span<const double> log_sums, std::span<const float> key) {
  double sum = 0;
  for (int g = 0; g < row.group; ++g) {
    const double logit = logit_of(row, query_of(row, g), key) * std::numbers::log2e;
    sum += std::pow(1 / (1 + std::exp2(log_sums[static_cast<std::size_t>(g)] - logit)), row.rule->power);
  }
  return sum;
}

// Likewise of all cold tokens: [cold slot].
std::vector<float> additions(const Row& row) {
  const HeadCache& cold = *row.cold->tokens;
  std::vector<double> log_sums;
  for (int g = 0; g < row.group; ++g) log_sums.push_back(log_sum(row, g));
  std::vector<float> all(static_cast<std::size_t>(cold.used())), key(static_cast<std::size_t>(row.head_dim));
  for (int slot = 0; slot < cold.used(); ++slot) {
    cold.read_key(slot, key);
    all[static_cast<std::size_t>(slot)] = static_cast<float>(addition(row, log_sums, key));
  }
  return all;
}

// `added`: [slot], what the row would add to what the head holds.
void recall_tokens(const Row& row, const std::vector<double>& added) {
  HeadCache &head = *row.head, &cold = *row.cold->tokens;
  const std::vector<float> of_head(added.begin(), added.end());
  const std::vector<float> of_cold = additions(row);
  RecallChoice choice;
  choose_recalled(head, cold, *row.rule, row.position, row.cold->most, of_head, of_cold, choice);
  for (std::size_t i = 0; i < choice.cold.size(); ++i) {
    row.cold->leave({choice.head[i].slot, 0});
    recall(head, cold, *row.rule, row.position, choice, i);
  }
}

void weigh_values(const Row& row, const std::vector<std::vector<double>>& p) {
  const auto dim = static_cast<std::size_t>(row.head_dim);
  std::vector<double> out(static_cast<std::size_t>(row.group) * dim, 0.0);
  std::vector<float> value(dim);
  for (int slot = 0; slot < row.head->used(); ++slot) {
    row.head->read_value(slot, value);
    for (std::size_t g = 0; g < p.size(); ++g) {
      for (std::size_t i = 0; i < dim; ++i) out[g * dim + i] += p[g][static_cast<std::size_t>(slot)] * value[i];
    }
  }
  std::transform(out.begin(), out.end(), row.out.begin(), [](double x) { return static_cast<float>(x); });
}

void update_scores(const Row& row, const std::vector<double>& sum) {
  for (int slot = 0; slot < row.head->used(); ++slot) {
    if (row.head->position(slot) < 0) continue;
    const double updated = updated_score(*row.head, *row.rule, slot, sum[static_cast<std::size_t>(slot)]);
    row.head->score(slot) = static_cast<float>(updated);
  }
}

// Of each slot, the sum over the group of p^power, of those p that reach the threshold.
std::vector<double> added_scores(const Row& row, std::vector<std::vector<double>> p) {
  for (auto& head : p) {
    for (double& x : head) x = x >= row.rule->threshold ? std::pow(x, row.rule->power) : 0;
  }
  return sum_over_group(p);
}

// The slot the other implementation chose, if its score is as good as tied with ours.
int prefer_followed(const Row& row, int victim) {
  if (row.follow == nullptr) return victim;
  const HeadCache& head = *row.head;
  for (int slot = 0; slot < head.used(); ++slot) {
    if (std::find(row.follow->begin(), row.follow->end(), head.position(slot)) == row.follow->end()) continue;
    const double ours = decisive_score(head, *row.rule, victim), theirs = decisive_score(head, *row.rule, slot);
    if (std::abs(theirs - ours) <= kNearTie * std::max(std::abs(ours), std::abs(theirs))) return slot;
  }
  return victim;
}

}  // namespace

void rotate(std::span<float> head, const RopeTable& rope, std::int64_t position) {
  const std::size_t pairs = rope.angles.size();
  for (std::size_t i = 0; i < pairs; ++i) {
    const double angle = rope.angles[i] * static_cast<double>(position);
    const double cosine = std::cos(angle) * rope.magnitude, sine = std::sin(angle) * rope.magnitude;
    float& x = head[rope.interleaved ? 2 * i : i];
    float& y = head[rope.interleaved ? 2 * i + 1 : i + pairs];
    const double x0 = x, y0 = y;
    x = static_cast<float>(x0 * cosine - y0 * sine);
    y = static_cast<float>(x0 * sine + y0 * cosine);
  }
}

void expire(const Row& row, const Leave& leave) {
  free_expired(*row.head, row.window, row.position, [&](int slot) { leave({slot, 0}); });
}

std::optional<std::vector<double>> attend_and_score(const Row& row) {
  if (!is_finite(row.k) || !is_finite(row.v)) return std::nullopt;
  HeadCache& head = *row.head;
  const int own = head.insert(static_cast<std::int32_t>(row.position), row.k, row.v);
  if (row.rule->value_weight) head.weigh(own, row.v);
  if (row.rule->classes) classify(head, *row.rule, own, *row.token_class);
  auto p = softmax_group(row, {});
  std::vector<double> sums = sum_over_group(p);
  const auto finite = [&] {
    return std::none_of(sums.begin(), sums.end(), [](double sum) { return std::isnan(sum); });
  };
  if (row.cold && finite()) {
    recall_tokens(row, added_scores(row, p));
    p = softmax_group(row, {});
    sums = sum_over_group(p);
  }
  if (!finite()) return std::nullopt;
  if (scores(*row.rule)) update_scores(row, added_scores(row, p));
  if (row.rule->mode == RetentionMode::oracle) p = softmax_group(row, ideal_mask(row, sums));
  weigh_values(row, p);
  return sums;
}

void evict(const Row& row, const std::vector<double>& probabilities, const Leave& leave) {
  HeadCache& head = *row.head;
  if (row.rule->mode != RetentionMode::score || !row.may_evict) return;
  if (!row.evict_all && head.occupied() < row.rule->budget + row.block) return;
  std::vector<int> victims;
  while (head.occupied() > row.rule->budget) {
    select_victims(head, *row.rule, row.position, 1, victims);
    if (victims.empty()) break;
    const int victim = prefer_followed(row, victims.front());
    leave({victim, static_cast<float>(probabilities[static_cast<std::size_t>(victim)])});
  }
}

bool attend(const Row& row, const Leave& leave) {
  expire(row, leave);
  const auto probabilities = attend_and_score(row);
  if (probabilities) evict(row, *probabilities, leave);
  return probabilities.has_value();
}

}  // namespace a2sf::reference
