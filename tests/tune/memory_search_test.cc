// The search for memories, on costs whose least is known.
#include "tune/memory_search.h"

#include <gtest/gtest.h>

#include <cmath>

namespace a2sf {
namespace {

// The squared distance of the memories' logarithms to those of `best`, summed over heads.
MemoryCost distance_to(const MemoryTable& best) {
  return [best](const MemoryTable& memories) -> Result<double> {
    double sum = 0;
    for (std::size_t layer = 0; layer < best.size(); ++layer) {
      for (std::size_t head = 0; head < best[layer].size(); ++head)
        sum += std::pow(std::log2(memories[layer][head] / best[layer][head]), 2);
    }
    return sum;
  };
}

void expect_near(const MemoryTable& found, const MemoryTable& best) {
  ASSERT_EQ(found.size(), best.size());
  for (std::size_t layer = 0; layer < best.size(); ++layer) {
    ASSERT_EQ(found[layer].size(), best[layer].size());
    for (std::size_t head = 0; head < best[layer].size(); ++head)
      EXPECT_NEAR(std::log2(found[layer][head]), std::log2(best[layer][head]), 0.1) << layer << ' ' << head;
  }
}

TEST(MemorySearch, FindsOneForAll) {
  const MemoryTable best = {{4, 4}, {4, 4}, {4, 4}};
  expect_near(search_memories(3, 2, {MemoryGroups::one}, distance_to(best)).value(), best);
}

TEST(MemorySearch, FindsOneForEachLayer) {
  const MemoryTable best = {{0.5, 0.5}, {6, 6}, {1.5, 1.5}};
  expect_near(search_memories(3, 2, {MemoryGroups::per_layer, 200}, distance_to(best)).value(), best);
}

TEST(MemorySearch, FindsOneForEachHead) {
  const MemoryTable best = {{0.5, 3}, {6, 1}};
  expect_near(search_memories(2, 2, {MemoryGroups::per_head, 300}, distance_to(best)).value(), best);
}

TEST(MemorySearch, EndsAtTheLimits) {
  EXPECT_NEAR(search_memories(1, 1, {}, distance_to({{1000}})).value()[0][0], 64, 1);
  EXPECT_NEAR(search_memories(1, 1, {}, distance_to({{0.001}})).value()[0][0], 0.125, 0.01);
}

TEST(MemorySearch, IsNoWorseThanTheStandardMemory) {
  std::size_t calls = 0;
  const auto found = search_memories(2, 2, {MemoryGroups::per_head, 9},
                                     [&](const MemoryTable&) -> Result<double> { return calls++ == 0 ? 0 : 1; });
  EXPECT_EQ(found.value(), (MemoryTable{{1.5, 1.5}, {1.5, 1.5}}));
  EXPECT_EQ(calls, 9U) << "as often as was allowed";
}

TEST(MemorySearch, AnErrorOfTheCostEndsIt) {
  std::size_t calls = 0;
  const auto found = search_memories(2, 2, {MemoryGroups::per_layer}, [&](const MemoryTable&) -> Result<double> {
    if (++calls == 3) return fail(ErrorKind::cancelled, "interrupted");
    return 1;
  });
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().kind, ErrorKind::cancelled);
  EXPECT_EQ(calls, 3U);
}

}  // namespace
}  // namespace a2sf
