// A hook that does what it must not: an error of its sequence that names it, and of no other.
#include "hooks/hook_support.h"

namespace a2sf::test {
namespace {

struct Misdeed {
  const char* name;
  const char* message;  // that the error must have, beside the hook's name
  HookNeeds needs;
  void (*act)(HookLayer&);
};

void evict_position(HookHead& head, std::int64_t position) {
  for_each_held(head, [&](int slot) {
    if (head.position(slot) == position) head.evict(slot);
  });
}

// Under "budget=8:sink=1:pin=2:recent=3".
const Misdeed kMisdeeds[] = {
    {"ASink", "must stay", {}, [](HookLayer& layer) { evict_position(layer.head(1), 0); }},
    {"APinnedToken", "must stay", {}, [](HookLayer& layer) { evict_position(layer.head(0), 1); }},
    {"TheNewestToken", "must stay", {}, [](HookLayer& layer) { evict_position(layer.head(0), layer.position()); }},
    {"ARecentToken", "must stay", {}, [](HookLayer& layer) { evict_position(layer.head(0), layer.position() - 2); }},
    {"ASlotBeyondTheLast", "not there", {}, [](HookLayer& layer) { layer.head(0).evict(layer.head(0).slots()); }},
    {"ASlotBeforeTheFirst", "not there", {}, [](HookLayer& layer) { layer.head(0).evict(-1); }},
    {"ATokenTwice",
     "not there",
     {},
     [](HookLayer& layer) {
       const int slot = lowest_score(layer.head(0));
       layer.head(0).evict(slot);
       layer.head(0).evict(slot);
     }},
    {"NothingWhereItMust", "capacity", {}, [](HookLayer&) {}},
    {"TooFew", "KV head 1", {}, [](HookLayer& layer) { layer.head(0).evict(lowest_score(layer.head(0))); }},
    {"BringingBackATokenThatIsThere",
     "cannot be there",
     {},
     [](HookLayer& layer) {
       HookHead& head = layer.head(0);
       head.evict(lowest_score(head));
       head.restore(0, Floats(kHeadDim), Floats(kHeadDim));
     }},
    {"BringingBackATokenToCome",
     "cannot be there",
     {},
     [](HookLayer& layer) {
       layer.head(0).evict(lowest_score(layer.head(0)));
       layer.head(0).restore(static_cast<std::int32_t>(layer.position()) + 1, Floats(kHeadDim), Floats(kHeadDim));
     }},
    {"BringingBackHalfAToken",
     "wrong size",
     {},
     [](HookLayer& layer) {
       layer.head(0).evict(lowest_score(layer.head(0)));
       layer.head(0).restore(3, Floats(kHeadDim / 2), Floats(kHeadDim));
     }},
    {"AKeyItDidNotAskFor",
     "did not say",
     {.last_rows = 1},
     [](HookLayer& layer) {
       Floats key(kHeadDim);
       layer.head(0).read_key(0, key);
       evict_lowest_scores(layer);
     }},
    {"AValueItDidNotAskFor",
     "did not say",
     {.last_rows = 1},
     [](HookLayer& layer) {
       Floats value(kHeadDim);
       layer.head(0).read_value(0, value);
       evict_lowest_scores(layer);
     }},
    {"WritingWithoutAsking",
     "did not say",
     {},
     [](HookLayer& layer) {
       layer.head(0).write_value(0, Floats(kHeadDim));
       evict_lowest_scores(layer);
     }},
    {"AQueryItDidNotAskFor",
     "did not say",
     {.keys_values = true},
     [](HookLayer& layer) {
       EXPECT_TRUE(layer.head(0).query(0, 0).empty());
       evict_lowest_scores(layer);
     }},
    {"AnEarlierRowThanItAskedFor",
     "did not say",
     {.last_rows = 2},
     [](HookLayer& layer) {
       EXPECT_TRUE(layer.head(0).probabilities(2, 0).empty());
       evict_lowest_scores(layer);
     }},
    {"ARowToCome",
     "did not say",
     {.last_rows = 2},
     [](HookLayer& layer) {
       EXPECT_TRUE(layer.head(0).query(-1, 0).empty());
       evict_lowest_scores(layer);
     }},
    {"WritingWhereNoTokenIs",
     "not there",
     {.keys_values = true},
     [](HookLayer& layer) {
       evict_lowest_scores(layer);
       for (int slot = 0; slot < layer.head(0).slots(); ++slot) {
         if (layer.head(0).position(slot) < 0) layer.head(0).write_value(slot, Floats(kHeadDim));
       }
     }},
    {"ReadingBeyondTheSlots",
     "not there",
     {.keys_values = true},
     [](HookLayer& layer) {
       Floats key(kHeadDim);
       layer.head(0).read_key(layer.head(0).slots() + 300, key);
       evict_lowest_scores(layer);
     }},
};

class Misuse : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Misuse);

TEST_P(Misuse, IsAnErrorThatNamesTheHookAndLeavesTheNeighboursAlone) {
  const Tokens tokens = random_tokens(30), others = random_tokens(30, 8);
  Session alone = session_of("a2sf:budget=8", model());
  const Floats expected = feed_all(alone, others);
  for (const Misdeed& misdeed : kMisdeeds) {
    SCOPED_TRACE(misdeed.name);
    const PolicySpec spec = hooked({misdeed.act, {}, {}}, misdeed.needs, "budget=8:sink=1:pin=2:recent=3");
    Session bad = session_of(spec, model()), good = session_of("a2sf:budget=8", model());
    Session before = session_of("a2sf:budget=8", model());
    const std::array feeds = {Feed{&before, others, WantLogits::all}, Feed{&bad, tokens, WantLogits::all},
                              Feed{&good, others, WantLogits::all}};
    const Status stepped = Session::step(feeds);
    ASSERT_FALSE(stepped);
    EXPECT_EQ(stepped.error().kind, ErrorKind::bad_input);
    for (const char* part : {"'test-hook'", "layer 0", misdeed.message})
      EXPECT_NE(stepped.error().message.find(part), std::string::npos) << stepped.error().message;
    EXPECT_TRUE(same_bytes(before.logits(), expected) && same_bytes(good.logits(), expected));
    EXPECT_EQ(good.failure(), nullptr);
    ASSERT_NE(bad.failure(), nullptr);
    EXPECT_EQ(bad.failure()->message, stepped.error().message);
    EXPECT_TRUE(bad.logits().empty());
    EXPECT_FALSE(bad.feed(tokens));
    EXPECT_FALSE(bad.fork().value().feed(tokens)) << "so is a fork of it";
    EXPECT_TRUE(good.feed(tokens));
  }
}

// Beside the table above: without numbers there is nothing where they would be.
TEST_P(Misuse, OfANumberThatWasNotAskedForIsAnErrorToo) {
  const auto evict = [](HookLayer& layer) {
    for_each_held(layer.head(0), [&](int slot) { EXPECT_EQ(layer.head(0).number(slot, 0), 0) << "somebody else's"; });
    evict_lowest_scores(layer);
  };
  Session session = session_of(hooked({evict, {}, {}}, {}, "budget=8"), model());
  EXPECT_FALSE(session.feed(random_tokens(9)));
}

TEST_P(Misuse, ByAnObserverFailsTheSequenceThatItLooksAt) {
  Session session = session_of("a2sf:budget=8", model());
  const auto onlooker = std::make_shared<Onlooker>();
  onlooker->on_row = [](const HookLayer& layer) {
    Floats key(kHeadDim);
    layer.head(0).read_key(0, key);
  };
  ASSERT_TRUE(session.observe(onlooker, {.every_row = true}));
  const Status fed = session.feed(random_tokens(3));
  ASSERT_FALSE(fed);
  EXPECT_NE(fed.error().message.find("observer"), std::string::npos) << fed.error().message;
}

// What only looks on cannot write.
template <class T>
concept Writable = requires(T& head) {
  head.evict(0);
}
|| requires(T& head) { head.write_key(0, Floats()); }
|| requires(T& head) { head.write_value(0, Floats()); };
static_assert(Writable<HookHead> && !Writable<const HookHead>);

TEST(Needs, OutOfTheirRangesAreErrors) {
  const auto model = tiny(reference_device());
  for (const HookNeeds& needs :
       {HookNeeds{.last_rows = -1}, HookNeeds{.last_rows = 1025}, HookNeeds{.numbers = -1}, HookNeeds{.numbers = 17}}) {
    EXPECT_FALSE(check_needs(needs));
    EXPECT_FALSE(Session::create(model, {hooked({}, needs, "budget=8")}));
    Session session = session_of("a2sf:budget=8", model);
    EXPECT_FALSE(session.observe(std::make_shared<Onlooker>(), needs));
    EXPECT_FALSE(session.add_shadow(parse_policy("full").value(), std::make_shared<Onlooker>(), needs));
  }
  EXPECT_TRUE(check_needs({.last_rows = 1024, .numbers = 16}));
}

class OddCapacity : public HookFactory {
 public:
  explicit OddCapacity(std::int64_t capacity) : capacity_(capacity) {}
  std::string_view name() const override { return "odd-capacity"; }
  std::int64_t capacity(std::int64_t) const override { return capacity_; }
  std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<HookOfCalls>(Calls{}); }

 private:
  std::int64_t capacity_;
};

TEST(Capacity, OutOfItsRangeIsAnErrorThatNamesTheHook) {
  for (const std::int64_t capacity : {std::int64_t{-1}, std::int64_t{0}, kKeepAll, kKeepAll + 1}) {
    const auto session =
        Session::create(tiny(reference_device()), {hooked(std::make_shared<OddCapacity>(capacity), "budget=8")});
    ASSERT_FALSE(session);
    EXPECT_NE(session.error().message.find("odd-capacity"), std::string::npos) << session.error().message;
  }
}

}  // namespace
}  // namespace a2sf::test
