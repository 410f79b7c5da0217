#include "policy/recall.h"

#include <algorithm>
#include <cmath>

namespace a2sf {
namespace {

// What a token's score comes to when each of `rows` rows adds as much.
float after_rows(const HeadRule& rule, float addition, std::int64_t rows) {
  const auto n = static_cast<double>(rows);
  const double times = rule.alpha == 1 ? n : (1 - std::pow(rule.alpha, n)) / (1 - rule.alpha);
  return static_cast<float>(addition * times);
}

// Calls visit(slot, position) for each token of a head at one of the positions 0 .. now.
template <class Visit>
void for_each_token(const HeadCache& head, std::int64_t now, Visit visit) {
  int first = 0;
  for (const Chunk& chunk : head.chunks()) {
    const int slots = std::min(chunk.slots, head.used() - first);
    for (int i = 0; i < slots; ++i) {
      if (chunk.positions[i] >= 0 && chunk.positions[i] <= now) visit(first + i, chunk.positions[i]);
    }
    first += chunk.slots;
  }
}

// wanted[i] = the largest of additions[i .. i + kRecallReach).
void spread(const float* __restrict additions, std::span<float> wanted) {
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    float most = additions[i];
    for (std::size_t back = 1; back < kRecallReach; ++back) most = std::max(most, additions[i + back]);
    wanted[i] = most;
  }
}

void find_wanted(const HeadCache& head, const HeadCache& cold, std::int64_t now, std::span<const float> of_head,
                 std::span<const float> of_cold, RecallChoice& choice) {
  const auto positions = static_cast<std::size_t>(now) + 1;
  choice.additions.assign(positions + kRecallReach - 1, 0);
  choice.wanted.resize(positions);
  float* const added = choice.additions.data() + kRecallReach - 1;
  for_each_token(head, now, [&](int slot, int position) { added[position] = of_head[static_cast<std::size_t>(slot)]; });
  for_each_token(cold, now, [&](int slot, int position) { added[position] = of_cold[static_cast<std::size_t>(slot)]; });
  spread(choice.additions.data(), choice.wanted);
}

constexpr auto goes = [](const RecallCandidate& a, const RecallCandidate& b) {
  return goes_before(a.wanted, a.position, b.wanted, b.position);
};
constexpr auto comes = [](const RecallCandidate& a, const RecallCandidate& b) {
  return goes_before(b.wanted, a.position, a.wanted, b.position);
};

// The first `count` in order, the others gone.
template <class Before>
void keep_first(std::vector<RecallCandidate>& candidates, std::ptrdiff_t count, Before before) {
  const auto end = candidates.begin() + std::min(count, std::ssize(candidates));
  std::partial_sort(candidates.begin(), end, candidates.end(), before);
  candidates.erase(end, candidates.end());
}

// The tokens that may go. The row's own may not.
void find_those_that_go(const HeadCache& head, HeadRule rule, std::int64_t now, RecallChoice& choice) {
  rule.recent = std::max<std::int64_t>(1, rule.recent);
  const Evictable evictable(rule, now);
  choice.head.clear();
  for_each_token(head, now, [&](int slot, int position) {
    if (!evictable(position)) return;
    const float wanted = choice.wanted[static_cast<std::size_t>(position)];
    choice.head.push_back({rule.value_weight ? wanted * head.number(slot, kValueWeight) : wanted, position, slot});
  });
}

// The `count` most wanted cold tokens of those that are wanted more than `least`. Whenever there are twice as many,
// the others go, and newcomers must match those that stay.
void find_those_that_come(const HeadCache& cold, const HeadRule& rule, std::int64_t now, std::ptrdiff_t count,
                          float least, RecallChoice& choice) {
  float match = least;
  choice.cold.clear();
  for_each_token(cold, now, [&](int slot, int position) {
    float wanted = choice.wanted[static_cast<std::size_t>(position)];
    if (rule.value_weight) wanted *= cold.number(slot, kValueWeight);
    if (!(wanted > least && wanted >= match)) return;
    choice.cold.push_back({wanted, position, slot});
    if (std::ssize(choice.cold) < 2 * count) return;
    const auto last = choice.cold.begin() + (count - 1);
    std::nth_element(choice.cold.begin(), last, choice.cold.end(), comes);
    match = last->wanted;
    choice.cold.erase(last + 1, choice.cold.end());
  });
  keep_first(choice.cold, count, comes);
}

}  // namespace

void choose_recalled(const HeadCache& head, const HeadCache& cold, const HeadRule& rule, std::int64_t now,
                     std::int64_t most, std::span<const float> of_head, std::span<const float> of_cold,
                     RecallChoice& choice) {
  find_wanted(head, cold, now, of_head, of_cold, choice);
  find_those_that_go(head, rule, now, choice);
  keep_first(choice.head, std::min<std::int64_t>(most, cold.occupied()), goes);
  choice.cold.clear();
  if (choice.head.empty()) return;
  find_those_that_come(cold, rule, now, std::ssize(choice.head), choice.head.front().wanted, choice);
  std::size_t pairs = 0;
  while (pairs < choice.cold.size() && choice.cold[pairs].wanted > choice.head[pairs].wanted) ++pairs;
  choice.cold.resize(pairs);
  choice.head.resize(pairs);
}

void recall(HeadCache& head, HeadCache& cold, const HeadRule& rule, std::int64_t now, const RecallChoice& choice,
            std::size_t i) {
  const RecallCandidate& back = choice.cold[i];
  const int slot = choice.head[i].slot;
  head.swap(slot, cold, back.slot);
  head.score(slot) = after_rows(rule, choice.wanted[static_cast<std::size_t>(back.position)], now - back.position + 1);
  ++recalls(head, slot);
}

}  // namespace a2sf
