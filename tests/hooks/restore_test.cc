// A hook may bring back what had left: a tier of its own behind the cache.
#include "hooks/hook_support.h"

namespace a2sf::test {
namespace {

constexpr HookNeeds kReadsBack{.keys_values = true};

int slot_of(const HookHead& head, std::int32_t position) {
  int found = -1;
  for_each_held(head, [&](int slot) {
    if (head.position(slot) == position) found = slot;
  });
  return found;
}

int oldest(const HookHead& head) {
  int oldest = -1;
  for_each_held(head, [&](int slot) {
    if (head.may_go(slot) && (oldest < 0 || head.position(slot) < head.position(oldest))) oldest = slot;
  });
  return oldest;
}

void evict_oldest(HookHead& head) {
  while (head.held() > head.budget()) head.evict(oldest(head));
}

// The oldest token goes and comes back. Returns its slot then.
int leave_and_return(HookHead& head) {
  const int slot = oldest(head);
  const std::int32_t position = head.position(slot);
  Floats key(kHeadDim), value(kHeadDim);
  head.read_key(slot, key);
  head.read_value(slot, value);
  head.evict(slot);
  EXPECT_LT(slot_of(head, position), 0);
  const int back = head.restore(position, key, value);
  EXPECT_EQ(slot_of(head, position), back);
  return back;
}

class Restoring : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Restoring);

// The same tokens in other slots: sums are added in another order.
TEST_P(Restoring, ATokenThatComesBackIsAsIfItHadStayed) {
  const auto plainly = [](HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) evict_oldest(layer.head(h));
  };
  const auto with_leave = [](HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      evict_oldest(head);
      const int back = leave_and_return(head);
      ASSERT_GE(back, 0);
      EXPECT_EQ(head.score(back), 0);
      EXPECT_EQ(head.held(), head.budget());
    }
  };
  const Tokens tokens = random_tokens(50);
  Session plain = session_of(hooked({plainly, {}, {}}, kReadsBack, "budget=9:sink=1"), model(), KvType::f32),
          restored = session_of(hooked({with_leave, {}, {}}, kReadsBack, "budget=9:sink=1"), model(), KvType::f32);
  const Floats expected = feed_all(plain, tokens), found = feed_all(restored, tokens);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-4) << i;
  for_each_head(*model(), [&](int layer, int h) { EXPECT_EQ(restored.retained(layer, h), plain.retained(layer, h)); });
}

TEST_P(Restoring, ATokenThatCameBackAndGoesAgainWasGivenNothing) {
  const auto back_and_forth = [](HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      head.evict(leave_and_return(head));
    }
  };
  Session session = session_of(hooked({back_and_forth, {}, {}}, kReadsBack, "budget=9"), model());
  session.record_evictions();
  ASSERT_TRUE(session.feed(random_tokens(20)));
  const auto evictions = session.evictions(0, 0);
  ASSERT_EQ(evictions.size(), 2U * 11);
  for (std::size_t i = 0; i < evictions.size(); i += 2) {
    EXPECT_EQ(evictions[i].position, evictions[i + 1].position);
    EXPECT_GT(evictions[i].probability, 0);
    EXPECT_EQ(evictions[i + 1].probability, 0);
    EXPECT_EQ(evictions[i + 1].score, 0);
  }
}

}  // namespace
}  // namespace a2sf::test
