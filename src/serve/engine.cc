#include "serve/engine.h"

#include <utility>

namespace a2sf::serve {

Engine::Engine(std::shared_ptr<const Model> model, const Tokenizer& tokenizer, const SchedulerLimits& limits,
               Metrics& metrics, Scheduler::Notify notify)
    : scheduler_(std::move(model), tokenizer, limits, metrics, std::move(notify)), thread_([this] { run(); }) {}

Engine::~Engine() {
  {
    const std::scoped_lock lock(mutex_);
    ends_ = true;
  }
  news_.notify_one();
  thread_.join();
}

void Engine::submit(RequestId id, Job job) { post(Submission{id, std::move(job)}); }
void Engine::cancel(RequestId id) { post(id); }

void Engine::post(Mail mail) {
  {
    const std::scoped_lock lock(mutex_);
    mail_.push_back(std::move(mail));
  }
  news_.notify_one();
}

void Engine::run() {
  std::vector<Mail> mail;
  for (bool has_work = false;;) {
    {
      std::unique_lock lock(mutex_);
      news_.wait(lock, [&] { return has_work || ends_ || !mail_.empty(); });
      if (ends_) return;
      mail.swap(mail_);
    }
    for (Mail& each : mail) {
      if (auto* submission = std::get_if<Submission>(&each)) {
        scheduler_.submit(submission->id, std::move(submission->job));
      } else {
        scheduler_.cancel(std::get<RequestId>(each));
      }
    }
    mail.clear();
    has_work = scheduler_.step();
  }
}

}  // namespace a2sf::serve
