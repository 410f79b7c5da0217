// PyramidKV: the budgets of its layers. Its scores are SnapKV's.
#include "hooks/ranked_replay.h"

namespace a2sf::test {
namespace {

const HookFactory& pyramid() {
  static const PolicySpec spec = parse_policy("pyramidkv").value();
  return *std::get<Hooked>(spec.score).factory;
}

TEST(PyramidKv, BudgetsFallInLineFromTheFirstLayerToTheLast) {
  // Beside the window of 32: a mean of 200, a last layer of 200 / 20.
  const std::int64_t expected[] = {32 + 390, 32 + 295, 32 + 200, 32 + 105, 32 + 10};
  for (int layer = 0; layer < 5; ++layer) EXPECT_EQ(pyramid().layer_budget(232, layer, 5), expected[layer]);
}

TEST(PyramidKv, TheMeanIsTheBudget) {
  for (const std::int64_t budget : {33, 64, 255, 1024}) {
    for (const int layers : {2, 7, 30}) {
      std::int64_t sum = 0;
      for (int layer = 0; layer < layers; ++layer) sum += pyramid().layer_budget(budget, layer, layers);
      EXPECT_NEAR(static_cast<double>(sum), static_cast<double>(layers * budget), layers / 2.0);
    }
  }
}

TEST(PyramidKv, BudgetsThatTheWindowFillsAreEqual) {
  for (int layer = 0; layer < 4; ++layer) EXPECT_EQ(pyramid().layer_budget(32, layer, 4), 32);
}

TEST(PyramidKv, ASessionsLayersHaveThoseBudgets) {
  const Session session = session_of("pyramidkv:budget=52", tiny(reference_device()));
  EXPECT_EQ(session.rule(0, 0).budget, 32 + 39);
  EXPECT_EQ(session.rule(1, 1).budget, 32 + 1);
}

TEST(PyramidKv, AHeadIsResolvedAsASessionDoesWhereTheLayersAreKnown) {
  const PolicySpec spec = parse_policy("pyramidkv:budget=52").value();
  EXPECT_EQ(resolve(spec, 0, 2, 0, 0, 0).value().budget, 32 + 39);
  EXPECT_EQ(resolve(spec, 1, 2, 0, 0, 0).value().budget, 32 + 1);
  EXPECT_EQ(resolve(spec, 1, 0, 0, 0, 0).value().budget, 52);
}

TEST(PyramidKv, ALayerWhoseBudgetIsTooSmallIsNamedBesideTheBudgetThatWasAskedFor) {
  const auto session = Session::create(tiny(reference_device()), {parse_policy("pyramidkv:budget=40:sink=35").value()});
  ASSERT_FALSE(session);
  EXPECT_EQ(
      session.error().message,
      "of the budget 40 'pyramidkv' gives 32 to the last layer: budget 32 is smaller than what must stay: 35 first "
      "tokens (sink 35, pin 0) and 0 recent ones");
  const auto middle = resolve(parse_policy("pyramidkv:budget=40:sink=38").value(), 3, 5, 0, 0, 0);
  ASSERT_FALSE(middle);
  EXPECT_EQ(middle.error().message.find("of the budget 40 'pyramidkv' gives 36 to layer 3: "), 0U)
      << middle.error().message;
}

class PyramidKvOn : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(PyramidKvOn);

TEST_P(PyramidKvOn, TheLastRowsVoteInEachLayerForItsBudget) {
  Replay replay(parse_policy("pyramidkv:budget=52").value(), model(),
                RankedCuts([](const ShownHead& head) { return window_votes(head, 32, 5); }));
  converse(replay);
}

}  // namespace
}  // namespace a2sf::test
