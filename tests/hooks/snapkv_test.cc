// SnapKV against a plain simulation.
#include "hooks/ranked_replay.h"

namespace a2sf::test {
namespace {

class SnapKvOn : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(SnapKvOn);

TEST_P(SnapKvOn, TheLastRowsVote) {
  for (const char* options : {"budget=50", "budget=60:sink=3", "budget=24:recent=8", "budget=12", "budget=140"}) {
    SCOPED_TRACE(options);
    Replay replay(parse_policy(std::string("snapkv:") + options).value(), model(),
                  RankedCuts([](const ShownHead& head) { return window_votes(head, 32, 5); }));
    converse(replay);
  }
}

TEST_P(SnapKvOn, WindowAndKernelAreOptions) {
  Replay replay(parse_policy("snapkv:budget=24:recent=4:window=6:kernel=9").value(), model(),
                RankedCuts([](const ShownHead& head) { return window_votes(head, 6, 9); }));
  converse(replay);
}

TEST_P(SnapKvOn, ABlockIsSoManyTokensOfEachHead) {
  Replay replay(parse_policy("snapkv:budget=40:block=9").value(), model(),
                RankedCuts([](const ShownHead& head) { return window_votes(head, 32, 5); }));
  converse(replay);
}

TEST(SnapKvOptions, AreReadAndPrinted) {
  for (const char* text : {"snapkv:budget=64", "snapkv:budget=64:window=16", "snapkv:budget=64:recent=16:kernel=1"})
    EXPECT_EQ(to_string(parse_policy(text).value()), text);
}

TEST(SnapKvOptions, ThatAreOutOfRangeAreNamed) {
  for (const char* text : {"snapkv:window=0", "snapkv:window=1025", "snapkv:kernel=4", "snapkv:kernel=x"}) {
    const auto spec = parse_policy(text);
    ASSERT_FALSE(spec) << text;
    const std::string value = std::string("'") + std::string(text).substr(14) + "'";
    EXPECT_NE(spec.error().message.find(value), std::string::npos) << spec.error().message;
  }
}

}  // namespace
}  // namespace a2sf::test
