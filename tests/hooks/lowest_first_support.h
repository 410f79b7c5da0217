// Rules that give each token a score and let the lowest go, against a plain simulation of the rule.
#pragma once

#include <cmath>

#include "hooks/replay.h"

namespace a2sf::test {

// Everywhere where a rule decides: token by token, by blocks, with sinks and pins, under a window, at a prompt's end.
// `rule` makes a rule that has seen nothing yet; `name`: the policy, with its options.
inline void expect_lowest_first(const Device& device, const std::string& name,
                                const std::function<RuleOfHead()>& rule) {
  for (const char* options : {"budget=12:block=1", "budget=10:block=7:sink=2:pin=3:recent=2", "budget=20:recent=0"}) {
    SCOPED_TRACE(name + ":" + options);
    Replay replay(parse_policy(name + ":" + options).value(), tiny(device), rule());
    replay.feed(random_tokens(90), 64);
    replay.expect_same();
  }
  {
    SCOPED_TRACE("window");
    Replay replay(parse_policy(name + ":budget=8:block=3").value(), tiny(device, "gemma3"), rule());
    replay.feed(random_tokens(60), 60);
    replay.expect_same();
  }
  SCOPED_TRACE("prompt");
  Replay replay(parse_policy(name + ":budget=12:block=prompt:sink=1").value(), tiny(device), rule());
  replay.feed_prompt(random_tokens(60));
  replay.feed(random_tokens(10, 3));
  replay.feed_prompt(random_tokens(20, 4));
  replay.expect_same();
}

inline double cosine(const Floats& a, const Floats& b) {
  double product = 0, of_a = 0, of_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    product += static_cast<double>(a[i]) * b[i];
    of_a += static_cast<double>(a[i]) * a[i];
    of_b += static_cast<double>(b[i]) * b[i];
  }
  return product / std::sqrt(of_a * of_b);
}

// A hook with options under which it is the built-in policy, budget 12 in blocks of 5.
inline void expect_bytes_of_a2sf(const Device& device, const std::string& policy) {
  Session plain = session_of("a2sf:budget=12:block=5", tiny(device)), hook = session_of(policy, tiny(device));
  EXPECT_TRUE(same_bytes(feed_all(hook, random_tokens(80)), feed_all(plain, random_tokens(80)))) << policy;
}

// The bytes of a sequence do not depend on how it is fed, and a fork goes on as the original does.
inline void expect_same_bytes_in_chunks_and_forks(const Device& device, const std::string& policy) {
  SCOPED_TRACE(policy);
  const Tokens tokens = random_tokens(80);
  Session whole = session_of(policy, tiny(device));
  const Floats expected = feed_all(whole, tokens);
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}}) {
    Session pieces = session_of(policy, tiny(device));
    EXPECT_TRUE(same_bytes(feed_in(pieces, tokens, chunk), expected)) << chunk;
  }
  const std::span<const std::int32_t> all = tokens;
  Session original = session_of(policy, tiny(device));
  feed_in(original, all.first(50), 50);
  Session copy = original.fork().value();
  feed_in(original, random_tokens(30, 5), 30);
  const Floats rest = feed_in(copy, all.subspan(50), 3);
  EXPECT_TRUE(same_bytes(rest, std::span(expected).last(rest.size())));
}

// A resize lets it choose where no row was just computed; the sequence goes on.
inline void expect_resizes(const Device& device, const std::string& policy) {
  SCOPED_TRACE(policy);
  const auto model = tiny(device);
  Session session = session_of(policy, model);
  feed_in(session, random_tokens(50), 50);
  for (const std::int64_t budget : {6, 30, 9}) {
    const Status resized = session.resize({BudgetCount{budget}, {}});
    ASSERT_TRUE(resized) << resized.error().message;
    for_each_head(*model, [&](int layer, int h) { EXPECT_LE(std::ssize(session.retained(layer, h)), budget); });
    feed_in(session, random_tokens(20, 2), 20);
  }
}

// What a policy prints as, and what one that cannot be read is told.
inline void expect_prints_as(const std::string& text, const std::string& printed) {
  const auto spec = parse_policy(text);
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(to_string(*spec), printed);
  EXPECT_EQ(to_string(parse_policy(printed).value()), printed);
}
inline void expect_refused(const std::string& text, const std::string& message) {
  const auto spec = parse_policy(text);
  ASSERT_FALSE(spec) << text;
  EXPECT_EQ(spec.error().message, message);
}

}  // namespace a2sf::test
