// Which caches are kept, for whom, and which go first.
#include "serve/prefixes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "serve/tiny_server.h"

namespace a2sf::serve {
namespace {

constexpr std::uint64_t kRoom = std::uint64_t{1} << 30U;

class PrefixesTest : public TinyServer {
 protected:
  static PrefixKind kind_of(const std::string& owner = "a", const std::string& policy = "a2sf:budget=24") {
    return {owner, parse_policy(policy).value(), KvType::f16, false};
  }

  Session session_of(const PrefixKind& kind, const std::vector<Token>& tokens) const {
    auto session = Session::create(model_, {.policy = kind.policy, .kv_type = kind.kv_type}).value();
    EXPECT_TRUE(session.feed(tokens));
    return session;
  }

  void keep(Prefixes& prefixes, const std::vector<Token>& tokens, const PrefixKind& kind = kind_of()) const {
    prefixes.keep(kind, tokens, session_of(kind, tokens), kRoom);
  }

  // The tokens that a prompt need not read.
  static std::int64_t resumed(Prefixes& prefixes, const std::vector<Token>& prompt,
                              const PrefixKind& kind = kind_of()) {
    const auto session = prefixes.resume(kind, prompt, kRoom);
    return session ? session->position() : 0;
  }

  const std::uint64_t bytes_of_one_ = session_of(kind_of(), prompt_of(40)).kv_bytes();
};

TEST_F(PrefixesTest, TheLongestBeginningThatLeavesATokenToRead) {
  Prefixes prefixes(kRoom);
  keep(prefixes, prompt_of(30));
  keep(prefixes, prompt_of(50));
  keep(prefixes, prompt_of(40));
  EXPECT_EQ(resumed(prefixes, prompt_of(60)), 50);
  EXPECT_EQ(resumed(prefixes, prompt_of(50)), 40);
  EXPECT_EQ(resumed(prefixes, prompt_of(30)), 0);
  EXPECT_EQ(resumed(prefixes, prompt_of(60, 4)), 0);
}

TEST_F(PrefixesTest, WhatGoesOnHasTheBytesOfWhatReadAllAndLeavesTheKeptOneAsItWas) {
  Prefixes prefixes(kRoom);
  const auto prompt = prompt_of(70);
  keep(prefixes, prompt_of(40));
  auto anew = session_of(kind_of(), prompt);
  for (int time = 0; time < 2; ++time) {
    auto session = prefixes.resume(kind_of(), prompt, kRoom);
    ASSERT_TRUE(session);
    ASSERT_TRUE(session->feed(std::span(prompt).subspan(40)));
    EXPECT_TRUE(std::ranges::equal(session->logits(), anew.logits()));
    EXPECT_EQ(session->retained(0, 0), anew.retained(0, 0));
  }
}

TEST_F(PrefixesTest, NoneGoesOverToAnotherKind) {
  Prefixes prefixes(kRoom);
  keep(prefixes, prompt_of(40));
  PrefixKind wider = kind_of(), viewed = kind_of();
  wider.kv_type = KvType::f32;
  viewed.is_viewed = true;
  for (const PrefixKind& other : {kind_of("b"), kind_of(""), kind_of("a", "a2sf:budget=25"), wider, viewed,
                                  kind_of("a", "a2sf:budget=24:sink=1"), kind_of("a", "h2o:budget=24")})
    EXPECT_EQ(resumed(prefixes, prompt_of(60), other), 0);
  EXPECT_EQ(resumed(prefixes, prompt_of(60)), 40);
}

TEST_F(PrefixesTest, WhatWasUsedLongestAgoGoesFirst) {
  Prefixes prefixes(2 * bytes_of_one_);
  keep(prefixes, prompt_of(40, 1));
  keep(prefixes, prompt_of(40, 2));
  EXPECT_EQ(resumed(prefixes, prompt_of(50, 1)), 40);
  keep(prefixes, prompt_of(40, 3));
  EXPECT_EQ(prefixes.bytes(), 2 * bytes_of_one_);
  EXPECT_EQ(resumed(prefixes, prompt_of(50, 2)), 0);
  EXPECT_EQ(resumed(prefixes, prompt_of(50, 1)), 40);
  EXPECT_EQ(resumed(prefixes, prompt_of(50, 3)), 40);
  prefixes.shrink(bytes_of_one_);
  EXPECT_EQ(resumed(prefixes, prompt_of(50, 1)), 0);
  EXPECT_EQ(resumed(prefixes, prompt_of(50, 3)), 40);
}

TEST_F(PrefixesTest, TheSameTokensAreKeptOnce) {
  Prefixes prefixes(kRoom);
  keep(prefixes, prompt_of(40));
  keep(prefixes, prompt_of(40));
  EXPECT_EQ(prefixes.bytes(), bytes_of_one_);
  prefixes.shrink(0);
  EXPECT_EQ(prefixes.bytes(), 0U);
}

TEST_F(PrefixesTest, WithoutRoomForBothTheKeptOneItselfGoesOn) {
  Prefixes prefixes(kRoom);
  keep(prefixes, prompt_of(40));
  const auto session = prefixes.resume(kind_of(), prompt_of(60), bytes_of_one_ - 1);
  ASSERT_TRUE(session);
  EXPECT_EQ(session->position(), 40);
  EXPECT_EQ(prefixes.bytes(), 0U);
}

TEST_F(PrefixesTest, WhatExceedsTheRoomIsNotKeptAndDrivesNothingOut) {
  Prefixes prefixes(bytes_of_one_);
  keep(prefixes, prompt_of(40));
  const auto other = prompt_of(40, 2);
  prefixes.keep(kind_of(), other, session_of(kind_of(), other), bytes_of_one_ - 1);
  EXPECT_EQ(resumed(prefixes, prompt_of(50, 2)), 0);
  EXPECT_EQ(resumed(prefixes, prompt_of(50)), 40);
  Prefixes none(0);
  keep(none, other);
  EXPECT_EQ(none.bytes(), 0U);
}

}  // namespace
}  // namespace a2sf::serve
