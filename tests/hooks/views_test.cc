// What hooks and observers see is what the layer computed with.
#include "hooks/hook_support.h"

#include <cmath>

namespace a2sf::test {
namespace {

constexpr int kRows = 5;        // whose queries are kept
constexpr float kScale = 0.25;  // of the logits: 1 / sqrt(head dim)

// One KV head after one row, by position.
struct Seen {
  struct Token {
    float score;
    Floats key, value, given;  // given: by the last row, [query head of the group]
  };
  std::map<int, Token> tokens;
  std::vector<Floats> queries;  // [row back * group + query head]
  std::vector<Floats> probabilities;
  std::vector<int> positions;  // [slot]
};

using SeenRows = std::map<std::array<int, 3>, Seen>;  // layer, KV head, position

Seen look_at(const HookHead& head) {
  Seen seen;
  for (int slot = 0; slot < head.slots(); ++slot) seen.positions.push_back(head.position(slot));
  for (int back = 0; back < kRows; ++back) {
    for (int g = 0; g < head.group(); ++g) {
      const auto query = head.query(back, g), p = head.probabilities(back, g);
      seen.queries.emplace_back(query.begin(), query.end());
      seen.probabilities.emplace_back(p.begin(), p.end());
    }
  }
  for_each_held(head, [&](int slot) {
    Seen::Token token{head.score(slot), Floats(kHeadDim), Floats(kHeadDim), {}};
    head.read_key(slot, token.key);
    head.read_value(slot, token.value);
    for (int g = 0; g < head.group(); ++g)
      token.given.push_back(seen.probabilities[static_cast<std::size_t>(g)][static_cast<std::size_t>(slot)]);
    seen.tokens[head.position(slot)] = token;
  });
  return seen;
}

constexpr HookNeeds kSeesRows{.every_row = true, .last_rows = kRows, .keys_values = true};

SeenRows rows_seen(Session& session, const Tokens& tokens, std::size_t chunk) {
  SeenRows rows;
  const auto onlooker = std::make_shared<Onlooker>();
  onlooker->on_row = [&](const HookLayer& layer) {
    EXPECT_TRUE(std::equal(layer.token_ids().begin(), layer.token_ids().end(), tokens.begin(),
                           tokens.begin() + layer.position() + 1));
    EXPECT_EQ(layer.kv_heads(), kKvHeads);
    for (int h = 0; h < layer.kv_heads(); ++h) {
      EXPECT_EQ(layer.head(h).group(), kGroup);
      EXPECT_EQ(layer.head(h).head_dim(), kHeadDim);
      rows[{layer.layer(), h, static_cast<int>(layer.position())}] = look_at(layer.head(h));
      EXPECT_EQ(layer.head(h).held(), std::ssize(rows[{layer.layer(), h, static_cast<int>(layer.position())}].tokens));
    }
  };
  EXPECT_TRUE(session.observe(onlooker, kSeesRows));
  feed_in(session, tokens, chunk);
  EXPECT_TRUE(session.observe(nullptr));
  return rows;
}

class Views : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Views);

TEST_P(Views, ProbabilitiesAreTheSoftmaxOfTheQueriesOverTheKeysThatAreThere) {
  Session session = session_of("a2sf:budget=12:block=3", model(), KvType::f32);
  for (const auto& [where, seen] : rows_seen(session, random_tokens(50), 50)) {
    const int now = where[2];
    for (int back = 0; back < kRows; ++back) {
      for (int g = 0; g < kGroup; ++g) {
        const auto at = static_cast<std::size_t>(back * kGroup + g);
        const Floats &query = seen.queries[at], &p = seen.probabilities[at];
        if (back > now) {
          EXPECT_TRUE(query.empty() && p.empty());
          continue;
        }
        ASSERT_EQ(query.size(), std::size_t{kHeadDim});
        ASSERT_EQ(p.size(), seen.positions.size());
        std::map<int, double> expected;
        double sum = 0;
        for (const auto& [position, token] : seen.tokens) {
          if (position > now - back) continue;
          const double dot = std::inner_product(query.begin(), query.end(), token.key.begin(), 0.0);
          sum += expected[position] = std::exp(dot * kScale);
        }
        for (std::size_t slot = 0; slot < p.size(); ++slot) {
          const int position = seen.positions[slot];
          const double wanted = expected.contains(position) ? expected[position] / sum : 0;
          EXPECT_NEAR(p[slot], wanted, 1e-5) << "position " << position << " after " << now << ", " << back << " back";
        }
        EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), 1, 1e-5);
      }
    }
  }
}

TEST_P(Views, EarlierQueriesKeysAndValuesStayWhatTheyWere) {
  Session session = session_of("a2sf:budget=12", model());
  const SeenRows rows = rows_seen(session, random_tokens(40), 40);
  for (const auto& [where, seen] : rows) {
    for (int back = 1; back < kRows && back <= where[2]; ++back) {
      const Seen& then = rows.at({where[0], where[1], where[2] - back});
      for (std::size_t g = 0; g < kGroup; ++g)
        EXPECT_TRUE(same_bytes(seen.queries[static_cast<std::size_t>(back) * kGroup + g], then.queries[g]));
    }
    for (const auto& [position, token] : seen.tokens) {
      const Seen::Token& as_new = rows.at({where[0], where[1], position}).tokens.at(position);
      EXPECT_TRUE(same_bytes(token.key, as_new.key) && same_bytes(token.value, as_new.value));
    }
  }
}

TEST_P(Views, ScoresFollowTheRecurrence) {
  Session session = session_of("a2sf:budget=12:alpha=0.9", model());
  const SeenRows rows = rows_seen(session, random_tokens(40), 7);
  for (const auto& [where, seen] : rows) {
    for (const auto& [position, token] : seen.tokens) {
      const auto before = rows.find({where[0], where[1], where[2] - 1});
      const bool is_new = position == where[2];
      const float old = is_new ? 0 : before->second.tokens.at(position).score;
      EXPECT_NEAR(token.score, 0.9F * old + std::accumulate(token.given.begin(), token.given.end(), 0.0F), 1e-5F);
    }
  }
}

TEST_P(Views, AreThoseOfTheReferenceWhateverTheChunks) {
  const Tokens tokens = random_tokens(50);
  Session reference = session_of("a2sf:budget=12", tiny(reference_device()), KvType::f32);
  const SeenRows expected = rows_seen(reference, tokens, 50);
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{50}}) {
    Session session = session_of("a2sf:budget=12", model(), KvType::f32);
    const SeenRows rows = rows_seen(session, tokens, chunk);
    ASSERT_EQ(rows.size(), expected.size());
    const auto near = [](const Floats& a, const Floats& b) {
      return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                        [](float x, float y) { return std::abs(x - y) <= 1e-4F * (1 + std::abs(y)); });
    };
    for (const auto& [where, seen] : rows) {
      const Seen& theirs = expected.at(where);
      ASSERT_EQ(seen.tokens.size(), theirs.tokens.size());
      for (std::size_t i = 0; i < kRows * kGroup; ++i) EXPECT_TRUE(near(seen.queries[i], theirs.queries[i]));
      for (const auto& [position, token] : seen.tokens) {
        const Seen::Token& other = theirs.tokens.at(position);
        EXPECT_NEAR(token.score, other.score, 1e-3F);
        EXPECT_TRUE(near(token.key, other.key) && near(token.value, other.value) && near(token.given, other.given));
      }
    }
  }
}

TEST_P(Views, OfAnInstructionSetAreTheSameBytesWhateverTheChunks) {
  const Tokens tokens = random_tokens(50);
  Session whole = session_of("a2sf:budget=12:block=4", model()), pieces = session_of("a2sf:budget=12:block=4", model());
  const SeenRows a = rows_seen(whole, tokens, 50), b = rows_seen(pieces, tokens, 3);
  for (const auto& [where, seen] : a) {
    const Seen& other = b.at(where);
    for (std::size_t i = 0; i < kRows * kGroup; ++i)
      EXPECT_TRUE(same_bytes(seen.probabilities[i], other.probabilities[i]));
  }
}

// The tokens that an earlier row saw may all have gone by now.
TEST_P(Views, ARowWhoseTokensHaveAllGoneGivesNothing) {
  const auto newest_only = [](HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      for_each_held(head, [&](int slot) {
        if (head.position(slot) <= layer.position() - 4) head.evict(slot);
      });
    }
  };
  int looked = 0;
  const auto look = [&](const HookLayer& layer) {
    if (layer.position() < 20) return;
    for (int g = 0; g < kGroup; ++g) {
      for (const float p : layer.head(0).probabilities(7, g)) EXPECT_EQ(p, 0);
      ++looked;
    }
  };
  Session session =
      session_of(hooked({newest_only, look, {}}, {.every_row = true, .last_rows = 8}, "budget=4:recent=1"), model());
  ASSERT_TRUE(session.feed(random_tokens(30)));
  EXPECT_GT(looked, 0);
}

TEST_P(Views, ARowThatNobodyLookedAtHasNoQuery) {
  Session session = session_of("a2sf:budget=12", model());
  ASSERT_TRUE(session.feed(random_tokens(20)));
  const auto onlooker = std::make_shared<Onlooker>();
  onlooker->on_row = [](const HookLayer& layer) {
    EXPECT_FALSE(layer.head(0).query(0, 0).empty());
    EXPECT_EQ(layer.head(0).query(2, 0).empty(), layer.position() - 2 < 20) << layer.position();
  };
  ASSERT_TRUE(session.observe(onlooker, {.every_row = true, .last_rows = 3}));
  ASSERT_TRUE(session.feed(random_tokens(4, 2)));
  ASSERT_TRUE(session.observe(nullptr));
  ASSERT_TRUE(session.feed(random_tokens(10, 3)));
  onlooker->on_row = [](const HookLayer& layer) {
    EXPECT_EQ(layer.head(0).query(2, 0).empty(), layer.position() - 2 < 34) << layer.position();
  };
  ASSERT_TRUE(session.observe(onlooker, {.every_row = true, .last_rows = 3}));
  ASSERT_TRUE(session.feed(random_tokens(4, 4)));
}

TEST_P(Views, InALayerWithAWindowOnlyTheWindowIsThere) {
  const auto model = this->model("gemma3");
  Session session = session_of("full", model);
  const auto onlooker = std::make_shared<Onlooker>();
  onlooker->on_row = [&](const HookLayer& layer) {
    const bool windowed = model->info().windows[static_cast<std::size_t>(layer.layer())] > 0;
    const auto seen = static_cast<int>(layer.position()) + 1;
    const HookHead& head = layer.head(1);
    EXPECT_EQ(head.held(), windowed ? std::min(seen, kWindow) : seen);
    for (int g = 0; g < head.group(); ++g) {
      for (int back = 0; back < std::min(2, seen); ++back) {
        const auto p = head.probabilities(back, g);
        EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), 1, 1e-5);
      }
    }
  };
  ASSERT_TRUE(session.observe(onlooker, {.every_row = true, .last_rows = 2}));
  ASSERT_TRUE(session.feed(random_tokens(40)));
}

// ---- numbers of a hook's own

// Numbers each token once, when it is first called with it, and checks that they stay with it.
Calls numbering(std::shared_ptr<int> checked) {
  const auto check = [checked](const HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      const HookHead& head = layer.head(h);
      for_each_held(head, [&](int slot) {
        const auto mine = static_cast<float>(head.position(slot) + 1000 * h + 10000 * layer.layer() + 1);
        const bool is_new = head.number(slot, 0) == 0;
        if (!is_new) ++*checked;
        EXPECT_EQ(head.number(slot, 0), is_new ? 0 : mine);
        EXPECT_EQ(head.number(slot, 1), is_new ? 0 : -mine);
        EXPECT_TRUE(is_new || head.position(slot) < layer.position());
      });
    }
  };
  const auto evict = [](HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      for_each_held(head, [&](int slot) {
        const auto mine = static_cast<float>(head.position(slot) + 1000 * h + 10000 * layer.layer() + 1);
        head.set_number(slot, 0, mine);
        head.set_number(slot, 1, -mine);
      });
    }
    evict_lowest_scores(layer);
  };
  return {evict, check, {}};
}

TEST_P(Views, NumbersStayWithTheirTokens) {
  for (const char* options : {"budget=12", "budget=12:block=5", "budget=290:recent=4", "budget=12:block=prompt"}) {
    SCOPED_TRACE(options);
    const auto checked = std::make_shared<int>(0);
    Session session = session_of(hooked(numbering(checked), {.every_row = true, .numbers = 2}, options), model());
    ASSERT_TRUE(session.feed(random_tokens(320), WantLogits::last, true));
    ASSERT_TRUE(session.feed(random_tokens(10, 2)));
    Session copy = session.fork().value();
    ASSERT_TRUE(copy.feed(random_tokens(10, 3)));
    for (const int budget : {8, 30, 10}) {
      ASSERT_TRUE(session.resize({BudgetCount{budget}, {}}));
      ASSERT_TRUE(session.feed(random_tokens(40, 4)));
    }
    EXPECT_GT(*checked, 1000);
  }
}

}  // namespace
}  // namespace a2sf::test
