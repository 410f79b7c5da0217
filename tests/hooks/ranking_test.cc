// What all rules that rank have in common.
#include "hooks/ranked_replay.h"

namespace a2sf::test {
namespace {

RankedCuts snapkv_cuts() {
  return RankedCuts([](const ShownHead& head) { return window_votes(head, 32, 5); });
}

class RankingOn : public OnEveryDevice {
 protected:
  static constexpr const char* kPolicies[] = {"snapkv:budget=40",         "adakv:budget=40",    "pyramidkv:budget=44",
                                              "keydiff:budget=20",        "expected:budget=20", "tova-mean:budget=20",
                                              "snapkv:budget=24:recent=4"};
  static Session after_prompt(const char* policy) {
    Session session = session_of(policy, model());
    EXPECT_TRUE(session.feed(random_tokens(90), WantLogits::last, true));
    return session;
  }
};
A2SF_ON_EVERY_DEVICE(RankingOn);

TEST_P(RankingOn, AForkGoesOnAsItsSequenceDoes) {
  for (const char* policy : kPolicies) {
    SCOPED_TRACE(policy);
    Session session = after_prompt(policy);
    feed_in(session, random_tokens(7, 2), 1);
    Session fork = session.fork().value();
    EXPECT_TRUE(same_bytes(feed_in(session, random_tokens(30, 3), 1), feed_in(fork, random_tokens(30, 3), 1)));
  }
}

TEST_P(RankingOn, ChunksOfAnAnswerChangeNoByte) {
  for (const char* policy : kPolicies) {
    SCOPED_TRACE(policy);
    Session single = after_prompt(policy), chunks = after_prompt(policy);
    EXPECT_TRUE(same_bytes(feed_in(single, random_tokens(40, 3), 1), feed_in(chunks, random_tokens(40, 3), 7)));
  }
}

TEST_P(RankingOn, AResizeRanksAfresh) {
  Replay replay(parse_policy("snapkv:budget=60:recent=4").value(), model(), snapkv_cuts());
  replay.feed_prompt(random_tokens(100));
  replay.feed(random_tokens(3, 3));
  replay.resize(15);
  replay.expect_same();
  replay.feed(random_tokens(20, 4));
  replay.expect_same();
}

// The first ranking would have served for what the second question evicts.
TEST_P(RankingOn, TheRowsOfASecondQuestionVote) {
  Replay replay(parse_policy("snapkv:budget=300").value(), model(), snapkv_cuts());
  replay.feed_prompt(random_tokens(306));
  replay.feed(random_tokens(3, 3));
  replay.feed_prompt(random_tokens(15, 4));
  replay.expect_same();
}

// An eighth of a large head's tokens can be all that a small one has; a head of recent tokens alone has nothing to
// rank.
TEST_P(RankingOn, EachHeadWearsOutARankingOfItsOwn) {
  PolicySpec spec = parse_policy("snapkv:recent=4").value();
  for (const std::int64_t small : {4, 10, 30}) {
    SCOPED_TRACE(small);
    spec.budget.budget = BudgetTable{{{small, 80}, {80, small}}, ""};
    Replay replay(spec, model(), snapkv_cuts());
    converse(replay);
  }
}

TEST_P(RankingOn, AWindowGoesFirst) {
  for (const char* options : {"budget=8:recent=2", "budget=24:recent=4"}) {
    SCOPED_TRACE(options);
    Replay replay(parse_policy(std::string("snapkv:") + options).value(), model("gemma3"), snapkv_cuts());
    replay.feed_prompt(random_tokens(60));
    replay.feed(random_tokens(20, 3));
    replay.expect_same();
  }
}

}  // namespace
}  // namespace a2sf::test
