// Published rules keep what kvpress keeps, of the same queries, keys and values (fixtures/make_kvpress.py).
#include <a2sf/policy.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "hooks/fake_head.h"

namespace a2sf::test {
namespace {

const nlohmann::json& fixture() {
  static const auto document =
      nlohmann::json::parse(std::ifstream(std::string(A2SF_TEST_FOLDER) + "/hooks/fixtures/kvpress.json"));
  return document;
}

// What the rule's hook keeps in each KV head at one cut. `recent`: what the press protects at the end.
std::vector<std::vector<int>> kept_by(const std::string& policy, std::int64_t sink, std::int64_t recent) {
  const auto queries = fixture()["queries"].get<std::vector<Vectors>>();
  const auto keys = fixture()["keys"].get<std::vector<Vectors>>();
  const auto values = fixture()["values"].get<std::vector<Vectors>>();
  const auto budget = fixture()["budget"].get<std::int64_t>();
  const PolicySpec spec = parse_policy(policy).value();
  const HookFactory& factory = *std::get<Hooked>(spec.score).factory;
  const auto group = static_cast<std::ptrdiff_t>(queries.size() / keys.size());

  std::vector<FakeHead> heads;
  heads.reserve(keys.size());
  std::vector<HookHead*> views;
  for (std::size_t h = 0; h < keys.size(); ++h) {
    const auto first = queries.begin() + static_cast<std::ptrdiff_t>(h) * group;
    heads.emplace_back(std::vector<Vectors>(first, first + group), keys[h], values[h]);
    heads.back().bound(budget, factory.capacity(budget), sink, recent);
    views.push_back(&heads.back());
  }
  const auto hook = factory.make({1, static_cast<int>(queries.size()), static_cast<int>(keys.size()), 16});
  HookLayer layer(0, fixture()["tokens"].get<std::int64_t>() - 1, {}, views);
  hook->evict(layer);
  std::vector<std::vector<int>> kept;
  for (const FakeHead& head : heads) kept.push_back(head.kept());
  return kept;
}

std::vector<std::vector<int>> kept_by_kvpress(const std::string& rule) {
  return fixture()["kept"][rule].get<std::vector<std::vector<int>>>();
}

TEST(Kvpress, SnapKvKeepsTheSame) { EXPECT_EQ(kept_by("snapkv", 0, 32), kept_by_kvpress("snapkv")); }

TEST(Kvpress, AdaKvKeepsTheSame) { EXPECT_EQ(kept_by("adakv", 0, 32), kept_by_kvpress("adakv")); }

TEST(Kvpress, KeyDiffKeepsTheSame) { EXPECT_EQ(kept_by("keydiff", 0, 0), kept_by_kvpress("keydiff")); }

// Where nothing is rotated, and the rows are those that the press takes: all but the sinks.
TEST(Kvpress, ExpectedAttentionKeepsTheSame) {
  EXPECT_EQ(kept_by("expected:window=92", fixture()["sink"], 0), kept_by_kvpress("expected"));
}

// The press protects the last token.
TEST(Kvpress, TovaKeepsTheSame) { EXPECT_EQ(kept_by("tova-mean", 0, 1), kept_by_kvpress("tova-mean")); }

}  // namespace
}  // namespace a2sf::test
