// How rows are computed follows from a few facts.
#include "kernels/cpu/schedule.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace a2sf::cpu {
namespace {

// A decoded token over a few slots, in heads that keep everything.
LayerFacts facts(void (*set)(LayerFacts&)) {
  LayerFacts facts{.rows = 1,
                   .slots = 100,
                   .window = 0,
                   .in_prompt = false,
                   .scores = false,
                   .oracle = false,
                   .ring = false,
                   .watched = false};
  set(facts);
  return facts;
}

struct ScheduleCase {
  std::string what;
  LayerFacts facts;
  Schedule expected;
};

std::vector<ScheduleCase> schedule_cases() {
  using F = LayerFacts&;
  return {
      {"a decoded token", facts([](F) {}), Schedule::head_by_head},
      {"a decoded token with scores", facts([](F f) { f.scores = true; }), Schedule::head_by_head},
      {"a row that is not yet long", facts([](F f) { f.slots = kLongRow; }), Schedule::head_by_head},
      {"a long row", facts([](F f) { f.slots = kLongRow + 1; }), Schedule::over_partitions},
      {"a long row with scores", facts([](F f) { f.slots = 4096, f.scores = true; }), Schedule::over_partitions},
      {"a long row of a prompt", facts([](F f) { f.slots = 4096, f.in_prompt = true, f.scores = true; }),
       Schedule::over_partitions},
      {"a long row in a window", facts([](F f) { f.slots = 4096, f.window = 4096; }), Schedule::head_by_head},
      {"a long row in a ring", facts([](F f) { f.slots = 4096, f.window = 4096, f.ring = true; }),
       Schedule::head_by_head},
      {"a long row of the oracle", facts([](F f) { f.slots = 4096, f.oracle = true; }), Schedule::head_by_head},
      {"a chunk of full attention", facts([](F f) { f.rows = 64; }), Schedule::side_by_side},
      {"a chunk over many slots", facts([](F f) { f.rows = 64, f.slots = 4096; }), Schedule::side_by_side},
      {"a chunk of the oracle", facts([](F f) { f.rows = 64, f.oracle = true; }), Schedule::side_by_side},
      {"a chunk that evicts", facts([](F f) { f.rows = 64, f.scores = true; }), Schedule::head_by_head},
      {"a chunk of a prompt that evicts at its end",
       facts([](F f) { f.rows = 64, f.scores = true, f.in_prompt = true; }), Schedule::side_by_side},
      {"the same in a window", facts([](F f) { f.rows = 64, f.scores = true, f.in_prompt = true, f.window = 40; }),
       Schedule::head_by_head},
      {"a chunk in rings", facts([](F f) { f.rows = 64, f.window = 40, f.ring = true; }), Schedule::in_ring},
      {"a chunk in a window with scores", facts([](F f) { f.rows = 64, f.window = 40, f.scores = true; }),
       Schedule::head_by_head},
      {"somebody looks at a token", facts([](F f) { f.watched = true; }), Schedule::watched},
      {"somebody looks at a long row", facts([](F f) { f.watched = true, f.slots = 4096; }), Schedule::watched},
      {"somebody looks at a chunk", facts([](F f) { f.watched = true, f.rows = 64; }), Schedule::watched},
      {"somebody looks at rings", facts([](F f) { f.watched = true, f.rows = 64, f.window = 40, f.ring = true; }),
       Schedule::watched},
  };
}

TEST(Schedule, FollowsFromTheFactsOfALayer) {
  for (const ScheduleCase& c : schedule_cases()) EXPECT_EQ(schedule_of(c.facts), c.expected) << c.what;
}

}  // namespace
}  // namespace a2sf::cpu
