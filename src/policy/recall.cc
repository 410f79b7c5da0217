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

}  // namespace

void choose_recalled(const HeadCache& head, const HeadCache& cold, const HeadRule& rule, std::int64_t now,
                     std::int64_t most, std::span<const float> additions, RecallChoice& choice) {
  choice.cold.clear();
  select_victims(head, rule, now, std::min<std::int64_t>(most, cold.occupied()), choice.head);
  if (choice.head.empty()) return;
  const auto worth = [&](int slot) {
    const float addition = additions[static_cast<std::size_t>(slot)];
    return rule.value_weight ? addition * cold.number(slot, kValueWeight) : addition;
  };
  const float lowest = decisive_score(head, rule, choice.head.front());
  for (int slot = 0; slot < cold.used(); ++slot) {
    if (cold.position(slot) >= 0 && worth(slot) > lowest) choice.cold.push_back(slot);
  }
  const auto count = std::min(choice.cold.size(), choice.head.size());
  std::partial_sort(
      choice.cold.begin(), choice.cold.begin() + static_cast<std::ptrdiff_t>(count), choice.cold.end(),
      [&](int a, int b) { return worth(a) != worth(b) ? worth(a) > worth(b) : cold.position(a) < cold.position(b); });
  std::size_t pairs = 0;
  while (pairs < count && worth(choice.cold[pairs]) > decisive_score(head, rule, choice.head[pairs])) ++pairs;
  choice.cold.resize(pairs);
  choice.head.resize(pairs);
}

void recall(HeadCache& head, HeadCache& cold, const HeadRule& rule, std::int64_t now, std::span<const float> additions,
            const RecallChoice& choice, std::size_t i) {
  const int slot = choice.head[i], from = choice.cold[i];
  head.swap(slot, cold, from);
  head.score(slot) = after_rows(rule, additions[static_cast<std::size_t>(from)], now - head.position(slot) + 1);
  ++recalls(head, slot);
}

}  // namespace a2sf
