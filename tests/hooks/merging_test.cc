// A hook may write what goes into what stays.
#include "hooks/hook_support.h"

namespace a2sf::test {
namespace {

constexpr HookNeeds kReads{.every_row = true, .last_rows = 1, .keys_values = true};

// A victim, and the position it was merged into.
struct Merge {
  int layer, kv_head, victim, kept;
};
using Merges = std::vector<Merge>;

struct KeyValue {
  Floats key = Floats(kHeadDim), value = Floats(kHeadDim);
};
KeyValue read(const HookHead& head, int slot) {
  KeyValue both;
  head.read_key(slot, both.key);
  head.read_value(slot, both.value);
  return both;
}
Floats mean(const Floats& a, const Floats& b) {
  Floats mean(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) mean[i] = (a[i] + b[i]) / 2;
  return mean;
}

// The token after the victim that is still there.
int next_of(const HookHead& head, int victim) {
  int next = -1;
  for_each_held(head, [&](int slot) {
    if (head.position(slot) <= head.position(victim)) return;
    if (next < 0 || head.position(slot) < head.position(next)) next = slot;
  });
  return next;
}

void merge_lowest(HookHead& head, int layer, int kv_head, Merges* merges) {
  while (head.held() > head.budget()) {
    const int victim = lowest_score(head), kept = next_of(head, victim);
    if (merges != nullptr) merges->push_back({layer, kv_head, head.position(victim), head.position(kept)});
    const KeyValue a = read(head, victim), b = read(head, kept);
    head.write_key(kept, mean(a.key, b.key));
    head.write_value(kept, mean(a.value, b.value));
    head.evict(victim);
  }
}

PolicySpec merging(const std::string& options, Merges* merges = nullptr) {
  const auto evict = [merges](HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) merge_lowest(layer.head(h), layer.layer(), h, merges);
  };
  return hooked({evict, {}, {}}, kReads, options);
}

// Keys and values by layer, KV head and position, as they should be: merged here, never read again from the cache.
class Ledger {
 public:
  explicit Ledger(const Merges& merges) : merges_(merges) {}

  // Before the row's own evictions. Returns what its attention should give: [query head][head dim].
  Floats row(const HookLayer& layer) {
    for (; done_ < merges_.size(); ++done_) {
      const Merge& merge = merges_[done_];
      const KeyValue& gone = at(merge.layer, merge.kv_head, merge.victim);
      KeyValue& kept = at(merge.layer, merge.kv_head, merge.kept);
      kept = {mean(gone.key, kept.key), mean(gone.value, kept.value)};
    }
    Floats out;
    for (int h = 0; h < layer.kv_heads(); ++h) {
      const HookHead& head = layer.head(h);
      for_each_held(head, [&](int slot) {
        const KeyValue there = read(head, slot);
        if (head.position(slot) == layer.position()) at(layer.layer(), h, head.position(slot)) = there;
        EXPECT_EQ(there.key, at(layer.layer(), h, head.position(slot)).key);
        EXPECT_EQ(there.value, at(layer.layer(), h, head.position(slot)).value);
      });
      for (int g = 0; g < head.group(); ++g) {
        std::vector<double> sum(kHeadDim);
        const auto p = head.probabilities(0, g);
        for_each_held(head, [&](int slot) {
          const Floats& value = at(layer.layer(), h, head.position(slot)).value;
          for (std::size_t i = 0; i < value.size(); ++i) sum[i] += p[static_cast<std::size_t>(slot)] * value[i];
        });
        out.insert(out.end(), sum.begin(), sum.end());
      }
    }
    return out;
  }

 private:
  KeyValue& at(int layer, int kv_head, int position) { return tokens_[{layer, kv_head, position}]; }

  const Merges& merges_;
  std::size_t done_ = 0;
  std::map<std::array<int, 3>, KeyValue> tokens_;
};

class Merging : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Merging);

TEST_P(Merging, ChangesTheOutputAsAPlainComputationSays) {
  for (const char* options : {"budget=10", "budget=10:block=4:sink=1:recent=2"}) {
    SCOPED_TRACE(options);
    Merges merges;
    Session session = session_of(merging(options, &merges), model(), KvType::f32);
    std::map<HeadKey, Floats> expected;  // layer, position
    Ledger ledger(merges);
    const auto onlooker = std::make_shared<Onlooker>();
    onlooker->on_row = [&](const HookLayer& layer) {
      expected[{layer.layer(), static_cast<int>(layer.position())}] = ledger.row(layer);
    };
    ASSERT_TRUE(session.observe(onlooker, kReads));
    const auto outputs = std::make_shared<Onlooker>();
    int compared = 0;
    outputs->on_outputs = [&](const ShadowRow& row) {
      const Floats& wanted = expected.at({row.layer, static_cast<int>(row.position)});
      ASSERT_EQ(row.output.size(), wanted.size());
      for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(row.output[i], wanted[i], 1e-4F);
      ++compared;
    };
    ASSERT_TRUE(session.add_shadow(parse_policy("full").value(), outputs));
    ASSERT_TRUE(session.feed(random_tokens(50)));
    EXPECT_EQ(compared, 2 * 50);
    EXPECT_GT(merges.size(), 100U);
  }
}

TEST_P(Merging, IsNotWhatEvictionAloneGives) {
  const Tokens tokens = random_tokens(50);
  const PolicySpec evicting = hooked({evict_lowest_scores, {}, {}}, {}, "budget=10");
  Session merges = session_of(merging("budget=10"), model()), evicts = session_of(evicting, model());
  EXPECT_FALSE(same_bytes(feed_all(merges, tokens), feed_all(evicts, tokens)));
}

TEST_P(Merging, GivesTheSameBytesWhateverTheChunks) {
  const Tokens tokens = random_tokens(60);
  for (const char* options : {"budget=10", "budget=10:block=4"}) {
    Session whole = session_of(merging(options), model());
    const Floats expected = feed_all(whole, tokens);
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}}) {
      Session pieces = session_of(merging(options), model());
      EXPECT_TRUE(same_bytes(feed_in(pieces, tokens, chunk), expected)) << options << " " << chunk;
    }
  }
}

// What it wrote before a prompt's cache is cut, and before a resize, stays written.
TEST_P(Merging, StaysWhenTheCacheIsRebuilt) {
  const Tokens prompt = random_tokens(40), rest = random_tokens(10, 2);
  Session cut = session_of(merging("budget=10:block=prompt"), model());
  ASSERT_TRUE(cut.feed(prompt, WantLogits::last, true));
  // All at once and in one order: as a block that ends with the prompt.
  Session block = session_of(merging("budget=10:block=30"), model());
  ASSERT_TRUE(block.feed(prompt));
  for (int h = 0; h < kKvHeads; ++h) EXPECT_EQ(cut.retained(0, h), block.retained(0, h));
  EXPECT_TRUE(same_bytes(cut.logits(), block.logits()));
  ASSERT_TRUE(block.resize({BudgetCount{10}, {}}));
  const std::int32_t next = rest.front();
  ASSERT_TRUE(cut.feed(std::span(&next, 1)) && block.feed(std::span(&next, 1)));
  EXPECT_TRUE(same_bytes(cut.logits(), block.logits()));
}

TEST_P(Merging, ForksAreIndependent) {
  const Tokens start = random_tokens(30), rest = random_tokens(30, 2), other = random_tokens(30, 3);
  // Every third call evicts the oldest instead: the hook has a state of its own.
  const auto evict = [calls = 0](HookLayer& layer) mutable {
    const bool oldest = ++calls % 3 == 0;
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (!oldest) merge_lowest(head, layer.layer(), h, nullptr);
      while (head.held() > head.budget()) {
        int victim = -1;
        for_each_held(head, [&](int slot) {
          if (head.may_go(slot) && (victim < 0 || head.position(slot) < head.position(victim))) victim = slot;
        });
        head.evict(victim);
      }
    }
  };
  const PolicySpec spec = hooked({evict, {}, {}}, kReads, "budget=10");
  Session alone = session_of(spec, model()), original = session_of(spec, model());
  ASSERT_TRUE(alone.feed(start) && original.feed(start));
  Session copy = original.fork().value(), stray = original.fork().value();
  ASSERT_TRUE(stray.feed(other));
  const Floats expected = feed_in(alone, rest, 1);
  EXPECT_TRUE(same_bytes(feed_in(original, rest, 1), expected));
  ASSERT_TRUE(stray.feed(other));
  EXPECT_TRUE(same_bytes(feed_in(copy, rest, 1), expected));
}

}  // namespace
}  // namespace a2sf::test
