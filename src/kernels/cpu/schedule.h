// How the rows of one sequence are computed in one layer. The bytes do not depend on it.
#pragma once

namespace a2sf::cpu {

enum class Schedule {
  head_by_head,     // rows in order within a KV head; the heads of all sequences are divided among the threads
  side_by_side,     // prefill that evicts nothing before its last row: all are appended, then tiles attend in any order
  in_ring,          // the same, as many rows at a time as the ring of a window has room for
  over_partitions,  // decoding over many slots, as in FlashDecoding: partitions are divided among the threads
  watched           // hooks, observers or shadows see the layer: heads in parallel, one tile of rows after the other
};

// What the choice depends on.
struct LayerFacts {
  int rows;                   // of the sequence in this step
  int slots;                  // the largest high-water mark of a head
  int window;                 // of the layer, 0: none
  bool in_prompt;             // prefill under block = prompt: nothing is evicted before its end
  bool scores, oracle, ring;  // a head has scores; a head is an oracle; all heads are rings that evict nothing
  bool watched;
};

// A single row over more slots than this is split over the threads.
inline constexpr int kLongRow = 512;

constexpr Schedule schedule_of(const LayerFacts& facts) {
  if (facts.watched) return Schedule::watched;
  if (facts.rows == 1 && facts.slots > kLongRow && facts.window == 0 && !facts.oracle) return Schedule::over_partitions;
  if (facts.rows > 1 && facts.window == 0 && (!facts.scores || facts.in_prompt)) return Schedule::side_by_side;
  if (facts.rows > 1 && facts.ring) return Schedule::in_ring;
  return Schedule::head_by_head;
}

}  // namespace a2sf::cpu
