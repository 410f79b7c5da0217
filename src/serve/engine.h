// The one thread that computes: a scheduler, and a mailbox for those who must not wait for a step.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <variant>
#include <vector>

#include "serve/scheduler.h"

namespace a2sf::serve {

class Engine {
 public:
  // `notify` is called by the engine's thread and must not wait for anything.
  Engine(std::shared_ptr<const Model> model, const Tokenizer& tokenizer, const SchedulerLimits& limits,
         Metrics& metrics, Scheduler::Notify notify);
  ~Engine();  // what runs ends without an event
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Both are done before the next step.
  void submit(RequestId id, Job job);
  void cancel(RequestId id);

 private:
  struct Submission {
    RequestId id;
    Job job;
  };
  using Mail = std::variant<Submission, RequestId>;  // or the request to cancel

  void post(Mail mail);
  void run();

  Scheduler scheduler_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<Mail> mail_;
  bool ends_ = false;
  std::thread thread_;  // the last: it uses all the others
};

}  // namespace a2sf::serve
