#include "serve/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace a2sf::serve {
namespace {

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

RequestError error_of(const Error& error) {
  const bool is_theirs = error.kind == ErrorKind::bad_input || error.kind == ErrorKind::unsupported;
  return {is_theirs ? Refusal::bad_request : Refusal::failed, error.message};
}

PrefixKind kind_of(const Job& job) { return {job.owner, job.policy, job.kv_type, job.is_viewed}; }

}  // namespace

Scheduler::Scheduler(std::shared_ptr<const Model> model, const Tokenizer& tokenizer, const SchedulerLimits& limits,
                     Metrics& metrics, Notify notify)
    : model_(std::move(model)),
      tokenizer_(tokenizer),
      limits_(limits),
      metrics_(metrics),
      notify_(std::move(notify)),
      prefixes_(limits.prefix_memory) {}

bool Scheduler::fits(std::uint64_t cost) const {
  return running_.size() < limits_.max_sequences && cost <= limits_.memory - bytes_;
}

std::size_t Scheduler::waiting_requests() const {
  std::set<RequestId> ids;
  for (const Waiting& each : waiting_) ids.insert(each.request->id);
  return ids.size();
}

void Scheduler::submit(RequestId id, Job job) {
  const auto request = std::make_shared<Request>(Request{id, std::make_shared<const Job>(std::move(job)), 0});
  request->left = request->job->sequences();
  const auto& prompts = request->job->prompts;
  const auto is_too_large = [&](const JobPrompt& prompt) { return prompt.cost > limits_.memory; };
  if (std::any_of(prompts.begin(), prompts.end(), is_too_large))
    return fail(*request, {Refusal::bad_request, "a sequence would never fit into the memory for caches"});
  const bool starts_now = waiting_.empty() && fits(prompts.front().cost);
  if (!starts_now && waiting_requests() >= limits_.queue)
    return fail(*request, {Refusal::queue_full, fmt::format("the queue of {} requests is full", limits_.queue)});
  const auto is_less_urgent = [&](const Waiting& each) { return each.request->job->priority > request->job->priority; };
  auto place = std::find_if(waiting_.begin(), waiting_.end(), is_less_urgent);
  for (std::size_t i = 0; i < request->left; ++i) place = std::next(waiting_.insert(place, {request, i}));
}

void Scheduler::cancel(RequestId id) {
  if (forget(id)) metrics_.count_aborted();
  drop_finished();
}

// The caller drops what has finished: a step has it by number.
bool Scheduler::forget(RequestId id) {
  bool found = std::erase_if(waiting_, [&](const Waiting& each) { return each.request->id == id; }) > 0;
  for (Running& each : running_) {
    if (each.request->id != id) continue;
    each.sequence.reset();
    found = true;
  }
  return found;
}

void Scheduler::drop_finished() {
  std::erase_if(running_, [&](const Running& each) {
    if (each.sequence == nullptr) bytes_ -= each.cost;
    return each.sequence == nullptr;
  });
  metrics_.set_load({running_.size(), waiting_.size(), bytes_, prefixes_.bytes()});
}

bool Scheduler::step() {
  admit();
  drop_finished();
  if (running_.empty()) return !waiting_.empty();
  prepare_step();
  run_step();
  drop_finished();
  return true;
}

// Whether another choice is reading the same prompt: this one goes on from there.
bool Scheduler::follows_reader(const Waiting& waiting) const {
  const Job& job = *waiting.request->job;
  const JobPrompt* prompt = &job.prompt_of(waiting.number);
  return job.resumes && prompt->shared > 0 && std::any_of(running_.begin(), running_.end(), [&](const Running& each) {
           return each.sequence != nullptr && &each.sequence->begins() == prompt && each.sequence->reads();
         });
}

void Scheduler::admit() {
  for (std::size_t i = 0; i < waiting_.size() && running_.size() < limits_.max_sequences;) {
    if (follows_reader(waiting_[i])) {
      ++i;
      continue;
    }
    if (!fits(waiting_[i].cost())) {
      if (waiting_[i].passed >= limits_.most_passed) return;
      ++i;
      continue;
    }
    for (std::size_t older = 0; older < i; ++older) ++waiting_[older].passed;
    Waiting next = std::move(waiting_[i]);
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    start(std::move(next));
  }
}

void Scheduler::start(Waiting waiting) {
  Request& request = *waiting.request;
  const std::uint64_t cost = waiting.cost();
  bytes_ += cost;
  auto resumed = resume(*request.job, request.job->prompt_of(waiting.number));
  auto sequence = Sequence::create(model_, tokenizer_, request.job, waiting.number, std::move(resumed));
  if (!sequence) {
    bytes_ -= cost;
    return fail(request, error_of(sequence.error()));
  }
  if (waiting.number == 0) metrics_.observe_queue_time(seconds_since(request.job->arrived));
  running_.push_back({std::move(waiting.request), cost, std::move(*sequence)});
}

// The sequence counts among those that run.
std::optional<Session> Scheduler::resume(const Job& job, const JobPrompt& prompt) {
  std::optional<Session> resumed;
  if (job.resumes) {
    resumed = prefixes_.resume(kind_of(job), prompt.tokens, limits_.memory - bytes_);
    metrics_.count_prefix(prompt.tokens.size(), resumed ? static_cast<std::size_t>(resumed->position()) : 0);
  }
  prefixes_.shrink(limits_.memory - bytes_);
  return resumed;
}

// A copy of what this conversation has in common with others.
void Scheduler::keep_shared(const Sequence& sequence) {
  if (!sequence.job().resumes || !sequence.at_shared()) return;
  prefixes_.keep_copy(kind_of(sequence.job()), sequence.tokens(), sequence.session(), limits_.memory - bytes_);
}

// The next turn goes on from here. The cache was counted at its longest: it is kept in its own room.
void Scheduler::keep_end(Sequence& sequence) {
  if (!sequence.job().resumes) return;
  std::vector<Token> tokens = sequence.tokens();  // as long as it has its session
  const std::uint64_t room = limits_.memory - bytes_ + sequence.begins().cost;
  prefixes_.keep(kind_of(sequence.job()), std::move(tokens), sequence.end_session(), room);
}

// Whoever decodes comes first. Prompts always get on, if only by a token.
void Scheduler::prepare_step() {
  feeds_.clear();
  feeds_of_.clear();
  const auto add = [&](std::size_t i, std::size_t rows) {
    feeds_.push_back(running_[i].sequence->feed(rows));
    feeds_of_.push_back(i);
    return feeds_.back().tokens.size();
  };
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (!running_[i].sequence->reads()) add(i, 1);
  }
  std::size_t room = std::max(limits_.step_tokens, feeds_.size() + 1) - feeds_.size();
  for (std::size_t i = 0; i < running_.size() && room > 0; ++i) {
    if (!running_[i].sequence->reads()) continue;
    const std::size_t rows = add(i, room);
    metrics_.count_prompt_tokens(rows);
    room -= rows;
  }
}

void Scheduler::run_step() {
  if (const Status ran = batch_.run(feeds_); !ran) return run_one_by_one();
  for (std::size_t i = 0; i < feeds_.size(); ++i) take(running_[feeds_of_[i]], batch_.status(i), batch_.logits(i));
}

// A step that cannot start has changed nothing: who is to blame fails alone.
void Scheduler::run_one_by_one() {
  for (std::size_t i = 0; i < feeds_.size(); ++i) {
    Running& running = running_[feeds_of_[i]];
    if (running.sequence == nullptr) continue;
    const Status ran = batch_.run({&feeds_[i], 1});
    if (ran) {
      take(running, batch_.status(0), batch_.logits(0));
    } else {
      take(running, ran, {});
    }
  }
}

void Scheduler::take(Running& running, const Status& status, std::span<const float> logits) {
  if (running.sequence == nullptr) return;  // another sequence of its request has failed in this step
  Request& request = *running.request;
  if (!status) return fail(request, error_of(status.error()));
  Event event = running.sequence->take(logits);
  keep_shared(*running.sequence);
  if (!running.sequence->reads()) measure_token(running);
  if (event.end) {
    count_end(request, *event.end);
    keep_end(*running.sequence);
    running.sequence.reset();
  }
  if (event.end || event.view || !event.text.empty() || !event.tokens.empty()) notify_(request.id, std::move(event));
}

void Scheduler::measure_token(Running& running) {
  const auto now = Clock::now();
  const auto since = [&](Clock::time_point start) { return std::chrono::duration<double>(now - start).count(); };
  Request& request = *running.request;
  if (!std::exchange(request.answers, true)) metrics_.observe_first_token(since(request.job->arrived));
  if (running.last_token != Clock::time_point{}) metrics_.observe_gap(since(running.last_token));
  running.last_token = now;
}

void Scheduler::count_end(Request& request, const SequenceEnd& end) {
  metrics_.count_end(end);
  if (--request.left == 0) metrics_.observe_request(seconds_since(request.job->arrived));
}

void Scheduler::fail(const Request& request, RequestError error) {
  const RequestId id = request.id;
  forget(id);
  notify_(id, {.error = std::move(error)});
}

}  // namespace a2sf::serve
