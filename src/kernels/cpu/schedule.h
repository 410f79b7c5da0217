// How the rows of one sequence are computed in one layer. The bytes do not depend on it.
#pragma once

namespace a2sf::cpu {

enum class Schedule {
  head_by_head,     // in order within each KV head; the heads of all sequences are shared out over the threads
  side_by_side,     // all rows are appended, then tiles of them attend in any order: nothing goes before the last
  in_ring,          // the same, as many rows at a time as the ring of a window has room for
  over_partitions,  // one row over many slots: its partitions are shared out over the threads
  watched           // somebody looks on: heads side by side, tile after tile
};

// What the choice depends on.
struct LayerFacts {
  int rows;                   // of the sequence in this step
  int slots;                  // the most that a head uses
  int window;                 // of the layer, 0: none
  bool in_prompt;             // of block = prompt
  bool scores, oracle, ring;  // any head has scores; any is an oracle; all are rings that evict nothing
  bool watched;
};

// A single row over more slots than this is shared out over the threads.
inline constexpr int kLongRow = 512;

constexpr Schedule schedule_of(const LayerFacts& facts) {
  if (facts.watched) return Schedule::watched;
  if (facts.rows == 1 && facts.slots > kLongRow && facts.window == 0 && !facts.oracle) return Schedule::over_partitions;
  if (facts.rows > 1 && facts.window == 0 && (!facts.scores || facts.in_prompt)) return Schedule::side_by_side;
  if (facts.rows > 1 && facts.ring) return Schedule::in_ring;
  return Schedule::head_by_head;
}

}  // namespace a2sf::cpu
