// Shares the machine out over requests: which of them hold a cache, and whose tokens are in the next step. A state
// machine without threads and sockets: whoever owns it calls step() as long as there is work.
//
// A request's sequences start by its priority and then in the order in which requests came, each as soon as its cache
// fits into what is left of the memory, at its longest: nothing that has started ever waits for memory. Small sequences
// may pass one that does not fit yet, a bounded number of times. Caches that are kept for requests to come go where a
// sequence needs their bytes.
//
// A step feeds the last token of every sequence that decodes, and fills up with chunks of prompts, the oldest first.
// What a sequence says does not depend on any of this where the device promises exact bytes.
#pragma once

#include <a2sf/batch.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "serve/job.h"
#include "serve/metrics.h"
#include "serve/prefixes.h"
#include "serve/sequence.h"

namespace a2sf::serve {

struct SchedulerLimits {
  std::uint64_t memory = 0;         // bytes of all caches together
  std::size_t max_sequences = 32;   // that run at once
  std::size_t queue = 256;          // requests that wait
  std::size_t step_tokens = 128;    // of a step, where decoding leaves room for prompts
  std::size_t most_passed = 16;     // sequences that may start before an older one that does not fit
  std::uint64_t prefix_memory = 0;  // of the memory, bytes of caches that are kept for requests that go on from them
};

// The model, the tokenizer and the metrics must outlive it. Not thread safe.
class Scheduler {
 public:
  // Called for every event within step() and submit(); calls nothing of the scheduler.
  using Notify = std::function<void(RequestId, Event)>;

  Scheduler(std::shared_ptr<const Model> model, const Tokenizer& tokenizer, const SchedulerLimits& limits,
            Metrics& metrics, Notify notify);

  // An error event where the queue is full.
  void submit(RequestId id, Job job);
  // The request's sequences are gone, waiting or running, and there are no more events of it.
  void cancel(RequestId id);
  // One step of the model. False: there was nothing to do.
  bool step();

  std::size_t running() const { return running_.size(); }
  std::size_t waiting() const { return waiting_.size(); }
  std::uint64_t bytes() const { return bytes_; }  // that running sequences may come to take

 private:
  struct Request {
    RequestId id;
    std::shared_ptr<const Job> job;
    std::size_t left;      // sequences without an end
    bool answers = false;  // a token has come
  };
  struct Waiting {
    std::shared_ptr<Request> request;
    std::size_t number;      // of its sequences
    std::size_t passed = 0;  // how many have started before it that came later
    std::uint64_t cost() const { return request->job->prompt_of(number).cost; }
  };
  struct Running {
    std::shared_ptr<Request> request;
    std::uint64_t cost;
    std::unique_ptr<Sequence> sequence;  // nullptr: it is over
    Clock::time_point last_token{};
  };

  bool fits(std::uint64_t cost) const;
  std::size_t waiting_requests() const;
  bool follows_reader(const Waiting& waiting) const;
  void admit();
  void start(Waiting waiting);
  std::optional<Session> resume(const Job& job, const JobPrompt& prompt);
  void keep_shared(const Sequence& sequence);
  void keep_end(Sequence& sequence);
  void prepare_step();
  void run_step();
  void run_one_by_one();
  void take(Running& running, const Status& status, std::span<const float> logits);
  void measure_token(Running& running);
  void count_end(Request& request, const SequenceEnd& end);
  void fail(const Request& request, RequestError error);
  bool forget(RequestId id);
  void drop_finished();

  std::shared_ptr<const Model> model_;
  const Tokenizer& tokenizer_;
  SchedulerLimits limits_;
  Metrics& metrics_;
  Notify notify_;
  std::deque<Waiting> waiting_;   // in the order in which they should start
  std::vector<Running> running_;  // in the order in which they started
  std::uint64_t bytes_ = 0;
  Prefixes prefixes_;
  Batch batch_;
  std::vector<Feed> feeds_;            // of the next step
  std::vector<std::size_t> feeds_of_;  // whose they are, in running_
};

}  // namespace a2sf::serve
