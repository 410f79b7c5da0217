// What /metrics says, in the text format of Prometheus: with vLLM's names where they mean the same, so that its
// dashboards show this server too.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "serve/job.h"

namespace a2sf::serve {

struct Load {
  std::size_t running = 0, waiting = 0;  // sequences
  std::uint64_t bytes = 0;               // that the caches of running ones may come to take
  std::uint64_t prefix_bytes = 0;        // of caches that are kept for requests to come
};

class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds.begin(), bounds.end()), counts_(bounds.size()) {}
  void observe(double value);
  void write(std::string& text, const char* name, const std::string& labels) const;

 private:
  std::vector<double> bounds_;         // ascending
  std::vector<std::uint64_t> counts_;  // of values up to each
  std::uint64_t count_ = 0;
  double sum_ = 0;
};

// Thread safe.
class Metrics {
 public:
  Metrics(std::string model, std::uint64_t memory);

  void set_load(const Load& load);
  void count_prompt_tokens(std::size_t tokens);
  void count_prefix(std::size_t tokens, std::size_t found);  // of a prompt, which may go on from a cache; that it does
  void observe_queue_time(double seconds);
  void observe_first_token(double seconds);  // since the request came
  void observe_gap(double seconds);          // from one token of a sequence to its next
  void observe_request(double seconds);
  void count_end(const SequenceEnd& end);
  void count_aborted();
  void count_refused(Refusal refusal);
  void count_unknown_fields(std::size_t fields);

  Load load() const;
  std::string text() const;

 private:
  mutable std::mutex mutex_;
  const std::string model_;
  const std::uint64_t memory_;
  Load load_;
  std::uint64_t prefix_queries_ = 0, prefix_hits_ = 0;  // tokens
  std::uint64_t prompt_tokens_ = 0, generated_tokens_ = 0, unknown_fields_ = 0;
  double retained_ = 0, evicted_ = 0;
  std::map<std::string, std::uint64_t> finished_;  // by reason
  std::map<int, std::uint64_t> refused_;           // by status
  Histogram queue_time_, first_token_, gap_, request_;
};

}  // namespace a2sf::serve
