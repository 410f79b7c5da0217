// A hook of one's own under a name: found, set and printed as any policy is.
#include "hooks/hook_support.h"

#include <charconv>

namespace a2sf::test {
namespace {

// Keeps the newest tokens, but every `stride`-th.
class Strided : public HookFactory {
 public:
  std::string_view name() const override { return "strided"; }
  std::unique_ptr<Hook> make(const HookShape& shape) const override {
    EXPECT_EQ(shape.layers, 2);
    EXPECT_EQ(shape.heads, kHeads);
    EXPECT_EQ(shape.kv_heads, kKvHeads);
    EXPECT_EQ(shape.head_dim, kHeadDim);
    const auto evict = [stride = stride_](HookLayer& layer) {
      for (int h = 0; h < layer.kv_heads(); ++h) {
        HookHead& head = layer.head(h);
        const auto goes_first = [&](int a, int b) {
          const int x = head.position(a), y = head.position(b);
          return (x % stride == 0) != (y % stride == 0) ? x % stride == 0 : x < y;
        };
        while (head.held() > head.budget()) {
          int victim = -1;
          for_each_held(head, [&](int slot) {
            if (head.may_go(slot) && (victim < 0 || goes_first(slot, victim))) victim = slot;
          });
          head.evict(victim);
        }
      }
    };
    return std::make_unique<HookOfCalls>(Calls{evict, {}, {}});
  }
  Result<std::shared_ptr<const HookFactory>> with(std::string_view option, std::string_view value) const override {
    if (option != "stride") return HookFactory::with(option, value);
    auto changed = std::make_shared<Strided>(*this);
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), changed->stride_);
    if (error != std::errc{} || end != value.data() + value.size() || changed->stride_ < 2)
      return fail(ErrorKind::bad_input, "stride '" + std::string(value) + "' is not a whole number from 2 on");
    return changed;
  }
  std::string options() const override { return stride_ == 3 ? "" : ":stride=" + std::to_string(stride_); }

 private:
  int stride_ = 3;
};

PolicyRow row_of(const std::string& name) {
  PolicyRow row;
  row.spec.name = name;
  row.spec.score = Hooked{std::make_shared<Strided>(), {}};
  row.spec.keep = {};
  row.summary = "the newest tokens, but every third";
  return row;
}

class Registered : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const Status added = add_policy(row_of("strided"));
    ASSERT_TRUE(added) << added.error().message;
  }
};

TEST_F(Registered, IsFoundByItsName) {
  const auto rows = policies();
  EXPECT_EQ(rows.back().spec.name, "strided");
  const PolicySpec spec = parse_policy("strided:budget=4").value();
  ASSERT_TRUE(std::holds_alternative<Hooked>(spec.score));
  EXPECT_EQ(to_string(spec), "strided:budget=4");
}

TEST_F(Registered, ReadsAndPrintsItsOptions) {
  for (const char* text :
       {"strided:budget=4", "strided:budget=4:stride=5", "strided:budget=20%:sink=2:block=7:stride=9",
        "strided:alpha=0.5:budget=8:recent=1:pin=2:stride=2"}) {
    const auto spec = parse_policy(text);
    ASSERT_TRUE(spec) << spec.error().message;
    EXPECT_EQ(to_string(*spec), text);
    EXPECT_EQ(to_string(parse_policy(to_string(*spec)).value()), text);
  }
  EXPECT_EQ(to_string(parse_policy("strided:stride=5:stride=3:budget=4").value()), "strided:budget=4");
  const PolicyOption common[] = {{"stride", "6"}, {"budget", "5"}};
  EXPECT_EQ(to_string(parse_policy("strided", common).value()), "strided:budget=5:stride=6");
  EXPECT_EQ(to_string(parse_policy("strided:budget=4").value()), "strided:budget=4") << "the row is as it was";
}

TEST_F(Registered, RefusesOptionsThatItDoesNotHave) {
  for (const auto& [text, part] : {std::pair{"strided:stride=1", "'1'"}, std::pair{"strided:stride=x", "'x'"},
                                   std::pair{"strided:window=3", "strided has no option 'window'"},
                                   std::pair{"a2sf:stride=3", "'stride' is no option"},
                                   std::pair{"shared-budget:stride=3", "shared-budget has no option 'stride'"}}) {
    const auto spec = parse_policy(text);
    ASSERT_FALSE(spec) << text;
    EXPECT_NE(spec.error().message.find(part), std::string::npos) << spec.error().message;
  }
}

TEST_F(Registered, NamesAreUniqueAndReadable) {
  const std::size_t rows = policies().size();
  for (const char* name : {"strided", "a2sf", "full", "shared-budget", "", "a:b", "a,b", "a=b"}) {
    const Status added = add_policy(row_of(name));
    ASSERT_FALSE(added) << name;
    EXPECT_NE(added.error().message.find("'" + std::string(name) + "'"), std::string::npos) << added.error().message;
  }
  EXPECT_EQ(policies().size(), rows);
}

TEST_F(Registered, RunsUnderItsOptions) {
  Session third = session_of("strided:budget=4", tiny(reference_device())),
          other = session_of("strided:budget=4:stride=2:sink=1", tiny(reference_device()));
  ASSERT_TRUE(third.feed(random_tokens(20)) && other.feed(random_tokens(20)));
  EXPECT_EQ(third.retained(1, 1), (Tokens{14, 16, 17, 19}));
  EXPECT_EQ(other.retained(1, 1), (Tokens{0, 15, 17, 19}));
}

}  // namespace
}  // namespace a2sf::test
