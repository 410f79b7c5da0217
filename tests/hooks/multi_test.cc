// multi, victim by victim: each measure from its definition, PageRank by iteration over the whole graph.
#include <cmath>

#include "hooks/lowest_first_support.h"

namespace a2sf::test {
namespace {

using Measured = std::map<int, double>;  // by position

Measured attention_of(const HookHead& head) {
  Measured measured;
  for_each_held(head, [&](int slot) { measured[head.position(slot)] = head.score(slot); });
  return measured;
}

Measured frequency_of(const HookLayer& layer, const HookHead& head) {
  Measured measured;
  const auto ids = layer.token_ids();
  for_each_held(head, [&](int slot) {
    const auto id = ids[static_cast<std::size_t>(head.position(slot))];
    measured[head.position(slot)] = static_cast<double>(std::count(ids.begin(), ids.end(), id));
  });
  return measured;
}

// What has no edges passes its rank on to all tokens alike.
Measured text_rank_of(const HookLayer& layer, const HookHead& head) {
  std::map<int, Measured> edges;
  Measured rank;
  for_each_held(head, [&](int slot) { rank[head.position(slot)] = 1.0 / static_cast<double>(head.held()); });
  for (int back = 0; back < 16; ++back) {
    const int row = static_cast<int>(layer.position()) - back;
    if (row < 0 || !rank.contains(row)) continue;
    for (int g = 0; g < head.group(); ++g) {
      const auto p = head.probabilities(back, g);
      for_each_held(head, [&](int slot) {
        edges[row][head.position(slot)] += p[static_cast<std::size_t>(slot)] / static_cast<double>(head.group());
      });
    }
  }
  for (int i = 0; i < 100; ++i) {
    double shared = 0.15;
    for (const auto& [position, value] : rank) shared += edges.contains(position) ? 0 : 0.85 * value;
    Measured next;
    for (const auto& [position, value] : rank) next[position] = shared / static_cast<double>(rank.size());
    for (const auto& [row, to] : edges) {
      for (const auto& [position, probability] : to) next[position] += 0.85 * rank[row] * probability;
    }
    rank = next;
  }
  return rank;
}

Measured value_norm_of(const HookHead& head) {
  Measured measured;
  for_each_held(head, [&](int slot) {
    float norm = 0;
    for (const float x : value_of(head, slot)) norm += std::abs(x);
    measured[head.position(slot)] = norm;
  });
  return measured;
}

Measured age_of(const HookLayer& layer, const HookHead& head) {
  Measured measured;
  for_each_held(head, [&](int slot) {
    measured[head.position(slot)] = static_cast<double>(layer.position() - head.position(slot));
  });
  return measured;
}

struct MeasureWeights {
  double attention = 1, frequency = 0, textrank = 0, value = 0, age = 0;
};

RuleOfHead weighted_sum(const MeasureWeights& weights) {
  return [weights](const HookLayer& layer, int kv_head) {
    const HookHead& head = layer.head(kv_head);
    Measured sum;
    if (head.held() <= head.budget()) return sum;  // nothing goes
    const auto add = [&](double weight, const auto& measure) {
      if (weight == 0) return;
      const Measured measured = measure();
      std::vector<double> candidates;
      for_each_held(head, [&](int slot) {
        if (head.may_go(slot)) candidates.push_back(measured.at(head.position(slot)));
      });
      for_each_held(head, [&](int slot) {
        const double mine = measured.at(head.position(slot));
        const auto less = std::count_if(candidates.begin(), candidates.end(), [&](double x) { return x < mine; });
        sum[head.position(slot)] +=
            weight * static_cast<double>(less) / std::max(1.0, static_cast<double>(candidates.size()) - 1);
      });
    };
    add(weights.attention, [&] { return attention_of(head); });
    add(weights.frequency, [&] { return frequency_of(layer, head); });
    add(weights.textrank, [&] { return text_rank_of(layer, head); });
    add(weights.value, [&] { return value_norm_of(head); });
    add(weights.age, [&] { return age_of(layer, head); });
    return sum;
  };
}

class Multi : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Multi);

TEST_P(Multi, TheLowestWeightedSumOfRanksGoes) {
  const auto expect = [&](const std::string& options, const MeasureWeights& weights) {
    expect_lowest_first(GetParam(), "multi:" + options, [&] { return weighted_sum(weights); });
  };
  expect("value=0.5:age=0.5", {1, 0, 0, 0.5, 0.5});
  expect("attention=0:frequency=1:textrank=0:value=0:age=0", {0, 1, 0, 0, 0});
  expect("attention=0:frequency=0:textrank=1:value=0:age=0", {0, 0, 1, 0, 0});
  expect("attention=1:frequency=-0.375:textrank=0.5:value=0.25:age=-0.125", {1, -0.375, 0.5, 0.25, -0.125});
}

TEST_P(Multi, OfAttentionAloneIsTheBuiltInPolicy) {
  expect_bytes_of_a2sf(GetParam(), "multi:attention=2:frequency=0:textrank=0:value=0:age=0:budget=12:block=5");
}

TEST_P(Multi, AResizeAsksItToo) {
  expect_resizes(GetParam(), "multi:budget=12:block=5:frequency=0.5:textrank=0.5:value=0.5");
}

TEST_P(Multi, GivesTheSameBytesInAnyChunksAndForks) {
  expect_same_bytes_in_chunks_and_forks(GetParam(), "multi:budget=12:block=5:frequency=0.5:textrank=0.5:value=0.5");
}

TEST(MultiText, ReadsAndPrintsItsWeights) {
  expect_prints_as("multi:attention=1:value=0.5:age=0.5:textrank=0:budget=9", "multi:budget=9");
  expect_prints_as("multi:age=-0.25:frequency=2:budget=9:value=0", "multi:budget=9:frequency=2:value=0:age=-0.25");
  expect_refused("multi:textrank=101", "textrank '101' is not a number from -100 to 100");
  expect_refused("multi:value=", "value '' is not a number from -100 to 100");
  expect_refused("multi:norm=1", "multi has no option 'norm'");
}

}  // namespace
}  // namespace a2sf::test
