// How fast a model reads and writes at a given depth, and what its cache takes.
#pragma once

#include <a2sf/session.h>

#include <functional>
#include <memory>
#include <vector>

namespace a2sf {

constexpr unsigned kSpeedTestSeed = 20407;  // of the random tokens

struct SpeedTest {
  bool decode;  // one token a step; else all in one call
  std::size_t tokens, depth;
  std::size_t repeats;
  PolicySpec policy;
  KvType kv_type = KvType::f16;
  std::size_t sequences = 1;  // that decode together, all with a token in each step
};

struct SpeedResult {
  std::vector<double> tokens_per_s;  // of each repeat, of all sequences together, ascending
  std::size_t kv_bytes;              // the peak, of all sequences
  std::size_t cold_bytes;            // of these, those of the cold tier
  double attended;                   // tokens that a token attends to, on average over the test, layers and heads
  double matmul_seconds_per_token, attend_seconds_per_token;
};

double median_of_sorted(const std::vector<double>& values);

// Random tokens of a fixed seed; the depth is read once and forked for each repeat.
Result<SpeedResult> measure_speed(const std::shared_ptr<const Model>& model, const SpeedTest& test,
                                  const std::function<bool()>& keep_going = {});

}  // namespace a2sf
