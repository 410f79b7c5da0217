#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace a2sf::serve {
namespace {

constexpr double kWaits[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30};
constexpr double kGaps[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5};
constexpr double kRequests[] = {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240};

const char* finish_name(StopReason reason) { return reason == StopReason::length ? "length" : "stop"; }

// Quoted as the format wants it.
std::string quoted(const std::string& text) {
  std::string quoted;
  for (const char c : text) {
    if (c == '\\' || c == '"') quoted += '\\';
    quoted += c == '\n' ? ' ' : c;
  }
  return '"' + quoted + '"';
}

class Writer {
 public:
  explicit Writer(std::string model) : model_(std::move(model)) {}

  template <class Value>
  void one(const char* type, const char* name, const char* help, Value value) {
    head(type, name, help);
    fmt::format_to(std::back_inserter(text_), "{}{{{}}} {}\n", name, model_, value);
  }
  template <class Key>
  void many(const char* name, const char* help, const char* label, const std::map<Key, std::uint64_t>& values) {
    head("counter", name, help);
    for (const auto& [key, value] : values)
      fmt::format_to(std::back_inserter(text_), "{}{{{},{}=\"{}\"}} {}\n", name, model_, label, key, value);
  }
  void histogram(const char* name, const char* help, const Histogram& histogram) {
    head("histogram", name, help);
    histogram.write(text_, name, model_);
  }
  std::string take() { return std::move(text_); }

 private:
  void head(const char* type, const char* name, const char* help) {
    fmt::format_to(std::back_inserter(text_), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
  }

  std::string model_, text_;
};

}  // namespace

void Histogram::observe(double value) {
  ++count_;
  sum_ += value;
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  if (bound != bounds_.end()) ++counts_[static_cast<std::size_t>(bound - bounds_.begin())];
}

void Histogram::write(std::string& text, const char* name, const std::string& labels) const {
  const auto out = std::back_inserter(text);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < bounds_.size(); ++i) {
    sum += counts_[i];
    fmt::format_to(out, "{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bounds_[i], sum);
  }
  fmt::format_to(out, "{0}_bucket{{{1},le=\"+Inf\"}} {2}\n{0}_sum{{{1}}} {3}\n{0}_count{{{1}}} {2}\n", name, labels,
                 count_, sum_);
}

Metrics::Metrics(std::string model, std::uint64_t memory)
    : model_(std::move(model)),
      memory_(memory),
      finished_{{"stop", 0}, {"length", 0}, {"abort", 0}},
      queue_time_(kWaits),
      first_token_(kWaits),
      gap_(kGaps),
      request_(kRequests) {}

void Metrics::set_load(const Load& load) {
  const std::scoped_lock lock(mutex_);
  load_ = load;
}

void Metrics::count_prompt_tokens(std::size_t tokens) {
  const std::scoped_lock lock(mutex_);
  prompt_tokens_ += tokens;
}

void Metrics::count_prefix(std::size_t tokens, std::size_t found) {
  const std::scoped_lock lock(mutex_);
  prefix_queries_ += tokens;
  prefix_hits_ += found;
}

void Metrics::observe_queue_time(double seconds) {
  const std::scoped_lock lock(mutex_);
  queue_time_.observe(seconds);
}

void Metrics::observe_first_token(double seconds) {
  const std::scoped_lock lock(mutex_);
  first_token_.observe(seconds);
}

void Metrics::observe_gap(double seconds) {
  const std::scoped_lock lock(mutex_);
  gap_.observe(seconds);
}

void Metrics::observe_request(double seconds) {
  const std::scoped_lock lock(mutex_);
  request_.observe(seconds);
}

void Metrics::count_end(const SequenceEnd& end) {
  const std::scoped_lock lock(mutex_);
  ++finished_[finish_name(end.reason)];
  generated_tokens_ += end.generated_tokens;
  retained_ += end.retained;
  evicted_ += end.evicted;
}

void Metrics::count_aborted() {
  const std::scoped_lock lock(mutex_);
  ++finished_["abort"];
}

void Metrics::count_refused(Refusal refusal) {
  const std::scoped_lock lock(mutex_);
  ++refused_[static_cast<int>(refusal)];
}

void Metrics::count_unknown_fields(std::size_t fields) {
  const std::scoped_lock lock(mutex_);
  unknown_fields_ += fields;
}

Load Metrics::load() const {
  const std::scoped_lock lock(mutex_);
  return load_;
}

std::string Metrics::text() const {
  const std::scoped_lock lock(mutex_);
  Writer writer("model_name=" + quoted(model_));
  writer.one("gauge", "vllm:num_requests_running", "Sequences that hold a cache", load_.running);
  writer.one("gauge", "vllm:num_requests_waiting", "Sequences that wait for one", load_.waiting);
  writer.one("gauge", "vllm:kv_cache_usage_perc", "Share of the memory for caches that is given away, 0 to 1",
             memory_ == 0 ? 0.0 : static_cast<double>(load_.bytes) / static_cast<double>(memory_));
  writer.one("counter", "vllm:prompt_tokens_total", "Tokens of prompts that were read", prompt_tokens_);
  writer.one("counter", "vllm:prefix_cache_queries_total", "Tokens of prompts that could go on from a kept cache",
             prefix_queries_);
  writer.one("counter", "vllm:prefix_cache_hits_total", "Tokens of these that a kept cache had read", prefix_hits_);
  writer.one("counter", "vllm:generation_tokens_total", "Tokens of answers that are complete", generated_tokens_);
  writer.many("vllm:request_success_total", "Sequences that ended, by reason", "finished_reason", finished_);
  writer.histogram("vllm:request_queue_time_seconds", "From a request's arrival to its first sequence's start",
                   queue_time_);
  writer.histogram("vllm:time_to_first_token_seconds", "From a request's arrival to its first token", first_token_);
  writer.histogram("vllm:inter_token_latency_seconds", "From a token to the next one of its sequence", gap_);
  writer.histogram("vllm:e2e_request_latency_seconds", "From a request's arrival to its end", request_);
  writer.one("gauge", "a2sf_cache_bytes", "Bytes that the caches of running sequences may come to take", load_.bytes);
  writer.one("gauge", "a2sf_cache_limit_bytes", "Bytes that all caches together may take", memory_);
  writer.one("gauge", "a2sf_prefix_bytes", "Bytes of caches that are kept for requests that go on from them",
             load_.prefix_bytes);
  writer.one("counter", "a2sf_tokens_retained_total",
             "Tokens in the caches of sequences as they ended, the mean over layers and KV heads", retained_);
  writer.one("counter", "a2sf_tokens_evicted_total",
             "Tokens that these sequences had seen and no longer held, the same mean", evicted_);
  writer.many("a2sf_requests_refused_total", "Requests that ended in an error, by status", "status", refused_);
  writer.one("counter", "a2sf_unknown_fields_total", "Fields of requests that mean nothing here", unknown_fields_);
  return writer.take();
}

}  // namespace a2sf::serve
