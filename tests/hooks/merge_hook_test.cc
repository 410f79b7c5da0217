// merge: who goes, into which token, and the values that come of it, against a plain simulation in double precision
// that reads each value once, when its token comes.
#include <cmath>

#include "hooks/lowest_first_support.h"

namespace a2sf::test {
namespace {

using Vector = std::vector<double>;

struct Value {
  Vector value;
  double count = 1;
};

// The values of all heads, merged as the rule says after each row.
class MergeSimulation {
 public:
  MergeSimulation(double threshold, std::int64_t block) : threshold_(threshold), block_(block) {}

  // Compares the values that a head holds with what they should be, then merges and forgets its victims.
  void row(const HookLayer& layer, int kv_head) {
    const HookHead& head = layer.head(kv_head);
    std::map<int, Value>& values = heads_[{layer.layer(), kv_head}];
    std::map<int, int> slots;  // by position
    for_each_held(head, [&](int slot) {
      const int position = head.position(slot);
      slots[position] = slot;
      const Floats there = value_of(head, slot);
      if (position == layer.position()) values[position].value.assign(there.begin(), there.end());
      const Vector& expected = values.at(position).value;
      for (std::size_t d = 0; d < there.size(); ++d) EXPECT_NEAR(there[d], expected[d], 1e-5);
    });
    if (head.held() < head.budget() + block_) return;
    std::vector<std::pair<float, int>> order;  // score and position
    for (const auto& [position, slot] : slots) {
      if (head.may_go(slot)) order.emplace_back(head.score(slot), position);
    }
    std::sort(order.begin(), order.end());
    order.resize(static_cast<std::size_t>(head.held() - head.budget()));
    std::map<int, int> kept = slots;
    for (const auto& [score, position] : order) kept.erase(position);
    for (const auto& [score, victim] : order) merge(head, slots, kept, victim, values);
    for (const auto& [score, victim] : order) values.erase(victim);
  }
  int merges() const { return merges_; }

 private:
  void merge(const HookHead& head, const std::map<int, int>& slots, const std::map<int, int>& kept, int victim,
             std::map<int, Value>& values) {
    int nearest = -1;
    double most = -2;
    for (const auto& [position, slot] : kept) {
      const double alike = cosine(key_of(head, slots.at(victim)), key_of(head, slot));
      if (alike > most) most = alike, nearest = position;
    }
    if (most < threshold_) return;
    ++merges_;
    const Value& goes = values.at(victim);
    Value& stays = values.at(nearest);
    const double of_victim = goes.count * head.score(slots.at(victim));
    const double of_kept = stays.count * head.score(slots.at(nearest));
    for (std::size_t d = 0; d < stays.value.size(); ++d)
      stays.value[d] = (of_victim * goes.value[d] + of_kept * stays.value[d]) / (of_victim + of_kept);
    stays.count += goes.count;
  }

  double threshold_;
  std::int64_t block_;
  int merges_ = 0;
  std::map<HeadKey, std::map<int, Value>> heads_;
};

class MergeHook : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(MergeHook);

TEST_P(MergeHook, TheValuesAreThoseOfAPlainComputation) {
  for (const char* options : {"budget=12:block=1", "budget=10:block=7:sink=2:recent=2"}) {
    SCOPED_TRACE(options);
    const PolicySpec spec = parse_policy(std::string("merge:threshold=0.3:") + options).value();
    Session session = session_of(spec, model(), KvType::f32);
    MergeSimulation simulation(0.3, spec.block());
    const auto onlooker = std::make_shared<Onlooker>();
    onlooker->on_row = [&](const HookLayer& layer) {
      for (int h = 0; h < layer.kv_heads(); ++h) simulation.row(layer, h);
    };
    ASSERT_TRUE(session.observe(onlooker, kSeesAll));
    feed_all(session, random_tokens(80));
    EXPECT_GT(simulation.merges(), 20);
  }
}

TEST_P(MergeHook, TheLowestScoreGoes) {
  expect_lowest_first(GetParam(), "merge:threshold=0.3", [] {
    return [](const HookLayer& layer, int kv_head) {
      const HookHead& head = layer.head(kv_head);
      std::map<int, double> scores;
      for_each_held(head, [&](int slot) { scores[head.position(slot)] = head.score(slot); });
      return scores;
    };
  });
}

TEST_P(MergeHook, WithNothingSimilarEnoughIsTheBuiltInPolicy) {
  expect_bytes_of_a2sf(GetParam(), "merge:threshold=1:budget=12:block=5");
}

TEST_P(MergeHook, AResizeAsksItToo) { expect_resizes(GetParam(), "merge:budget=12:block=5:threshold=0.3"); }

TEST_P(MergeHook, GivesTheSameBytesInAnyChunksAndForks) {
  expect_same_bytes_in_chunks_and_forks(GetParam(), "merge:budget=12:block=5:threshold=0.3");
}

TEST(MergeHookText, ReadsAndPrintsItsOption) {
  expect_prints_as("merge:budget=9:threshold=0.9", "merge:budget=9");
  expect_prints_as("merge:threshold=0.5:budget=9", "merge:budget=9:threshold=0.5");
  expect_refused("merge:threshold=2", "threshold '2' is not a number from -1 to 1");
  expect_refused("merge:weights=a", "merge has no option 'weights'");
}

}  // namespace
}  // namespace a2sf::test
