// What the scheduler promises, driven step by step.
#include "serve/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "serve/tiny_server.h"

namespace a2sf::serve {
namespace {

using testing::HasSubstr;

struct Told {
  std::string text;
  std::vector<ScoredToken> tokens;
  std::vector<CacheView> views;
  std::optional<SequenceEnd> end;
};

// [place]: positions, as a client knows them that was told these.
std::vector<std::vector<std::int32_t>> held_after(const std::vector<CacheView>& views) {
  std::vector<std::set<std::int32_t>> held(views.front().held.size());
  std::int64_t tokens = 0;
  for (const CacheView& view : views) {
    const auto first_new = view.held.empty() ? tokens : view.held_tokens;
    for (std::size_t place = 0; place < view.held.size(); ++place)
      held[place] = {view.held[place].begin(), view.held[place].end()};
    tokens += static_cast<std::int64_t>(view.tokens.size());
    for (auto position = first_new; position < tokens; ++position) {
      for (auto& positions : held) positions.insert(static_cast<std::int32_t>(position));
    }
    for (std::size_t i = 0; i < view.gone.size(); i += 2)
      held[static_cast<std::size_t>(view.gone[i])].erase(view.gone[i + 1]);
  }
  std::vector<std::vector<std::int32_t>> lists;
  for (const auto& positions : held) lists.emplace_back(positions.begin(), positions.end());
  return lists;
}

class SchedulerTest : public TinyServer {
 protected:
  void use(SchedulerLimits limits) {
    if (limits.memory == 0) limits.memory = std::uint64_t{1} << 40U;
    scheduler_.emplace(model_, tokenizer_, limits, metrics_, [this](RequestId id, Event event) {
      if (event.error) {
        errors_[id] = *event.error;
        return;
      }
      Told& told = told_[{id, event.sequence}];
      told.text += event.text;
      if (event.view) told.views.push_back(*event.view);
      told.tokens.insert(told.tokens.end(), event.tokens.begin(), event.tokens.end());
      if (event.end) {
        EXPECT_FALSE(told.end);
        told.end = event.end;
        ended_.push_back(id);
      }
    });
  }
  void run() {
    while (scheduler_->step()) {
    }
    EXPECT_EQ(scheduler_->running() + scheduler_->waiting(), 0U);
    EXPECT_EQ(scheduler_->bytes(), 0U);
  }

  // What is kept may grow.
  Job resuming(Job job) const {
    job.resumes = true;
    for (JobPrompt& prompt : job.prompts) prompt.cost = job.cost(model_->info(), prompt.tokens.size()).value();
    return job;
  }

  // The same job by generate(), on its own.
  Generation alone(const Job& job, std::size_t sequence = 0) const {
    const auto& prompt = job.prompt_of(sequence).tokens;
    Session session = Session::create(model_, {.policy = job.policy, .kv_type = job.kv_type}).value();
    SamplerOptions options = job.sampler;
    options.seed += static_cast<std::uint32_t>(sequence % job.choices);
    Sampler sampler = Sampler::create(tokenizer_, options).value();
    EXPECT_TRUE(session.feed(prompt, WantLogits::last, job.policy.heeds_prompts()));
    for (const Token token : prompt) sampler.accept(token);
    return generate(session, tokenizer_, sampler, job.generate, [](std::string_view) { return true; }).value();
  }

  void expect_as_alone(RequestId id, const Job& job, std::size_t sequence = 0) {
    const Generation expected = alone(job, sequence);
    const Told& told = told_[{id, sequence}];
    EXPECT_EQ(told.text, expected.text);
    ASSERT_TRUE(told.end);
    EXPECT_EQ(told.end->reason, expected.reason);
    EXPECT_EQ(told.end->generated_tokens, expected.tokens.size());
    if (!job.generate.logprobs) return;
    const std::size_t scored = job.scores_prompt ? job.prompt_of(sequence).tokens.size() : 0;
    ASSERT_EQ(told.tokens.size(), scored + expected.tokens.size());
    for (std::size_t i = 0; i < expected.tokens.size(); ++i) {
      EXPECT_EQ(told.tokens[scored + i].token, expected.tokens[i]);
      EXPECT_EQ(told.tokens[scored + i].choice->logprob, expected.choices[i].logprob);
    }
  }

  std::optional<Scheduler> scheduler_;
  std::map<std::pair<RequestId, std::size_t>, Told> told_;
  std::map<RequestId, RequestError> errors_;
  std::vector<RequestId> ended_;
};

TEST_F(SchedulerTest, ManyRequestsSayWhatEachAloneWouldWhateverTheStepsAre) {
  const std::vector<std::string> policies = {"a2sf:budget=24",        "full",
                                             "h2o:budget=16:block=4", "a2sf:budget=20:block=prompt",
                                             "local:budget=30",       "a2sf:budget=16:sink=1:cold=64",
                                             "snapkv:budget=24"};
  for (int round = 0; round < 6; ++round) {
    std::mt19937 random(static_cast<unsigned>(round));
    const auto any = [&](std::size_t least, std::size_t most) {
      return std::uniform_int_distribution<std::size_t>(least, most)(random);
    };
    told_.clear();
    use({.max_sequences = any(1, 6), .queue = 100, .step_tokens = any(1, 70)});
    std::map<RequestId, Job> jobs;
    for (RequestId id = 1; id <= 8; ++id) {
      Job job = job_of(prompt_of(any(1, 150), static_cast<Token>(id)), any(0, 30),
                       policies[any(0, policies.size() - 1)], static_cast<std::uint32_t>(id));
      if (any(0, 1) == 1) job.generate.logprobs = any(0, 3);
      job.scores_prompt = job.generate.logprobs && any(0, 1) == 1;
      job.choices = any(1, 2);
      jobs.emplace(id, job);
      scheduler_->submit(id, std::move(job));
      for (std::size_t steps = any(0, 9); steps > 0; --steps) scheduler_->step();
    }
    run();
    EXPECT_TRUE(errors_.empty());
    for (const auto& [id, job] : jobs) {
      for (std::size_t i = 0; i < job.sequences(); ++i) expect_as_alone(id, job, i);
    }
  }
}

// Turns of conversations, some with a common beginning, that go on from what was kept.
TEST_F(SchedulerTest, WhoGoesOnFromAKeptCacheSaysWhatReadingAllAnewWould) {
  for (const std::string policy :
       {"a2sf:budget=24", "full", "h2o:budget=16:block=4", "local:budget=30", "tova:budget=20",
        "a2sf:budget=20:sink=1:value-weight=on", "shared-budget:budget=20"}) {
    SCOPED_TRACE(policy);
    told_.clear();
    use({.max_sequences = 4, .step_tokens = 19, .prefix_memory = std::uint64_t{1} << 30U});
    std::map<RequestId, Job> jobs;
    std::vector<std::vector<Token>> texts(3, prompt_of(40));
    for (RequestId id = 1; id <= 9; ++id) {
      std::vector<Token>& text = texts[id % texts.size()];
      const auto more = prompt_of(20, static_cast<Token>(id));
      text.insert(text.end(), more.begin(), more.end());
      Job job = resuming(job_of(text, 12, policy, static_cast<std::uint32_t>(id)));
      job.generate.logprobs = 1;
      job.prompts[0].shared = 40;
      jobs.emplace(id, job);
      scheduler_->submit(id, job);
      if (id % texts.size() != 0) continue;
      run();
      for (RequestId done = id - 2; done <= id; ++done) {
        for (const ScoredToken& token : told_[{done, 0}].tokens) texts[done % texts.size()].push_back(token.token);
      }
    }
    for (const auto& [id, job] : jobs) {
      expect_as_alone(id, job);
      const std::size_t cached = told_[{id, 0}].end->cached_tokens;
      const std::size_t before = id > 3 ? jobs.at(id - 3).prompts[0].tokens.size() : 0;
      EXPECT_GE(cached, before);
      EXPECT_LE((told_[{id, 0}].end->kv_bytes), job.prompts[0].cost);
    }
  }
}

// A client that follows the views knows what the cache holds: the whole that is told at the end of a shorter answer.
TEST_F(SchedulerTest, WhatIsToldOfACacheIsWhatItHolds) {
  const auto views_of = [&](const std::string& policy, std::size_t tokens) {
    told_.clear();
    use({.step_tokens = 19});
    Job job = job_of(prompt_of(50), tokens, policy);
    for (Token token = 0; token < tokenizer_.vocabulary_size(); ++token) {
      if (tokenizer_.is_end_of_generation(token)) job.sampler.logit_bias.push_back({token, -INFINITY});
    }
    job.is_viewed = true;
    scheduler_->submit(1, std::move(job));
    run();
    return told_[{1, 0}].views;
  };
  for (const std::string policy : {"a2sf:budget=24", "full", "h2o:budget=16:block=4", "local:budget=30",
                                   "a2sf:budget=20:block=prompt", "snapkv:budget=24", "shared-budget:budget=20"}) {
    SCOPED_TRACE(policy);
    const CacheView last = views_of(policy, 30).back();
    ASSERT_EQ(last.held_tokens, 79);
    std::vector<CacheView> views = views_of(policy, 40);
    ASSERT_EQ(views.size(), 42U);  // three of the prompt, then one of each token
    EXPECT_EQ(views[2].tokens.size(), 12U);
    views.resize(32);
    EXPECT_EQ(held_after(views), last.held);
    for (std::size_t i = 11; i < views.size(); ++i) add(views[10], views[i]);  // a client that takes its time
    views.resize(11);
    EXPECT_EQ(held_after(views), last.held);
  }
}

TEST(CacheViews, OfVeryManyDeparturesNoneIsToldUntilTheWholeIs) {
  CacheView waiting{.tokens = {1}, .gone = {0, 5}};
  add(waiting, {.tokens = {2}, .gone = std::vector<std::int32_t>(200000)});
  EXPECT_TRUE(waiting.is_lossy && waiting.gone.empty());
  add(waiting, {.gone = {0, 6}});
  EXPECT_TRUE(waiting.is_lossy && waiting.gone.empty());
  add(waiting, {.held = {{3, 9}}, .held_tokens = 10});
  add(waiting, {.tokens = {7}, .gone = {0, 3}});
  EXPECT_FALSE(waiting.is_lossy);
  EXPECT_EQ(waiting.gone, std::vector<std::int32_t>({0, 3}));
  EXPECT_EQ(waiting.tokens, std::vector<Token>({1, 2, 7}));
}

TEST_F(SchedulerTest, ChoicesReadTheirPromptOnce) {
  use({.max_sequences = 3, .step_tokens = 16, .prefix_memory = std::uint64_t{1} << 30U});
  Job job = job_of(prompt_of(100), 15);
  job.choices = 4;
  job.generate.logprobs = 0;
  job.prompts[0].shared = 99;
  job = resuming(job);
  scheduler_->submit(1, job);
  run();
  for (std::size_t i = 0; i < 4; ++i) {
    expect_as_alone(1, job, i);
    EXPECT_EQ((told_[{1, i}].end->cached_tokens), i == 0 ? 0U : 99U);
  }
}

TEST_F(SchedulerTest, AKeptCacheIsItsOwnersAndItsPolicys) {
  use({.prefix_memory = std::uint64_t{1} << 30U});
  const auto cached = [&](RequestId id, const std::string& owner, const std::string& policy, std::size_t tokens) {
    Job job = resuming(job_of(prompt_of(tokens), 1, policy));
    job.owner = owner;
    scheduler_->submit(id, std::move(job));
    run();
    return told_[{id, 0}].end->cached_tokens;
  };
  EXPECT_EQ(cached(1, "a", "a2sf:budget=24", 50), 0U);
  EXPECT_EQ(cached(2, "a", "a2sf:budget=24", 60), 50U);
  EXPECT_EQ(cached(3, "b", "a2sf:budget=24", 60), 0U);
  EXPECT_EQ(cached(4, "a", "a2sf:budget=25", 60), 0U);
  EXPECT_EQ(cached(5, "a", "a2sf:budget=24", 60), 50U);  // of 60 the last is left to read
  EXPECT_EQ(cached(6, "a", "a2sf:budget=24", 49), 0U);   // what was evicted for 50 tokens is no beginning of 49
}

TEST_F(SchedulerTest, KeptCachesGoWhereASequenceNeedsTheirBytes) {
  const Job probe = resuming(job_of(prompt_of(50), 1, "full"));
  const std::uint64_t cost = probe.prompts[0].cost;
  use({.memory = 2 * cost, .prefix_memory = 2 * cost});
  for (RequestId id = 1; id <= 6; ++id) {
    scheduler_->submit(id, resuming(job_of(prompt_of(50, static_cast<Token>(id)), 1, "full")));
    while (scheduler_->step()) EXPECT_LE(metrics_.load().bytes + metrics_.load().prefix_bytes, 2 * cost);
  }
  EXPECT_GT(metrics_.load().prefix_bytes, 0U);
  // Two at once need all there is, and go on from a cache that cannot stay beside them.
  Job again = resuming(job_of(prompt_of(51, 6), 1, "full"));
  for (RequestId id = 7; id <= 8; ++id) scheduler_->submit(id, again);
  while (scheduler_->step()) EXPECT_LE(metrics_.load().bytes + metrics_.load().prefix_bytes, 2 * cost);
  EXPECT_EQ((told_[{7, 0}].end->cached_tokens), 50U);
  EXPECT_TRUE(errors_.empty());
  expect_as_alone(7, again);
  expect_as_alone(8, again);
}

TEST_F(SchedulerTest, APromptsTokensAreScoredByTheRowsBeforeThem) {
  use({.step_tokens = 7});
  Job job = job_of(prompt_of(90), 0, "full");
  job.generate.logprobs = 2;
  job.scores_prompt = true;
  const auto prompt = job.prompts[0].tokens;
  scheduler_->submit(1, std::move(job));
  run();
  Session session = Session::create(model_, {.policy = parse_policy("full").value()}).value();
  ASSERT_TRUE(session.feed(prompt, WantLogits::all));
  const auto vocabulary = static_cast<std::size_t>(model_->info().vocabulary);
  const auto& tokens = told_[{1, 0}].tokens;
  ASSERT_EQ(tokens.size(), prompt.size());
  EXPECT_FALSE(tokens[0].choice);
  for (std::size_t i = 1; i < prompt.size(); ++i) {
    const auto row = session.logits().subspan((i - 1) * vocabulary, vocabulary);
    const double largest = *std::max_element(row.begin(), row.end()), own = row[static_cast<std::size_t>(prompt[i])];
    EXPECT_EQ(tokens[i].token, prompt[i]);
    ASSERT_EQ(tokens[i].choice->top.size(), 2U);
    EXPECT_NEAR(tokens[i].choice->top[0].log_probability - tokens[i].choice->logprob, largest - own, 1e-9);
  }
}

TEST_F(SchedulerTest, DecodingNeverWaitsForPrompts) {
  use({.step_tokens = 4});
  Job talker = job_of({1, 5}, 40);
  talker.generate.logprobs = 0;
  talker.sampler.logit_bias = {{2, -INFINITY}, {261, -INFINITY}};
  scheduler_->submit(1, std::move(talker));
  scheduler_->step();
  scheduler_->submit(2, job_of(prompt_of(300), 1));
  for (std::size_t i = 2; i <= 40; ++i) {
    scheduler_->step();
    EXPECT_EQ((told_[{1, 0}].tokens.size()), i);
  }
  run();
  EXPECT_TRUE((told_[{2, 0}].end));
}

TEST_F(SchedulerTest, CachesTogetherStayWithinTheMemory) {
  const Job one = job_of(prompt_of(20), 10);
  const std::uint64_t cost = one.prompts[0].cost;
  use({.memory = 2 * cost + cost / 2, .max_sequences = 8});
  for (RequestId id = 1; id <= 5; ++id) scheduler_->submit(id, one);
  std::size_t most = 0;
  while (scheduler_->step()) {
    most = std::max(most, scheduler_->running());
    EXPECT_LE(scheduler_->bytes(), 2 * cost);
  }
  EXPECT_EQ(most, 2U);
  EXPECT_EQ(ended_.size(), 5U);
  for (const auto& [who, told] : told_) EXPECT_LE(told.end->kv_bytes, cost);
}

TEST_F(SchedulerTest, SmallOnesPassALargeOneButNotForEver) {
  const Job small = job_of(prompt_of(4), 30, "full"), large = job_of(prompt_of(600), 30, "full");
  ASSERT_GT(large.prompts[0].cost, small.prompts[0].cost);
  use({.memory = large.prompts[0].cost, .max_sequences = 2, .most_passed = 3});
  scheduler_->submit(1, small);
  scheduler_->step();
  scheduler_->submit(100, large);
  for (RequestId id = 2; id <= 10; ++id) scheduler_->submit(id, small);
  run();
  ASSERT_EQ(ended_.size(), 11U);
  const auto place = std::find(ended_.begin(), ended_.end(), RequestId{100}) - ended_.begin();
  EXPECT_EQ(place, 4);  // behind the first, and three that passed it
}

TEST_F(SchedulerTest, TheMostUrgentStartFirstThenWhoCameFirst) {
  use({.max_sequences = 1});
  const std::int32_t priorities[] = {0, 1, 0, -1, 1, -1};
  for (RequestId id = 1; id <= std::size(priorities); ++id) {
    Job job = job_of(prompt_of(3), 1, "full", 1);
    job.priority = priorities[id - 1];
    scheduler_->submit(id, std::move(job));
  }
  run();
  EXPECT_THAT(ended_, testing::ElementsAre(4, 6, 1, 3, 2, 5));
}

TEST_F(SchedulerTest, AFullQueueRefusesAndAnIdleServerDoesNot) {
  use({.max_sequences = 1, .queue = 1});
  for (RequestId id = 1; id <= 2; ++id) scheduler_->submit(id, job_of(prompt_of(4), 5));
  EXPECT_EQ(errors_.count(2), 1U);  // the first still waits for a step
  scheduler_->step();
  scheduler_->submit(3, job_of(prompt_of(4), 5));
  scheduler_->submit(4, job_of(prompt_of(4), 5));
  ASSERT_EQ(errors_.count(4), 1U);
  EXPECT_EQ(errors_[4].refusal, Refusal::queue_full);
  run();
  EXPECT_EQ(ended_, (std::vector<RequestId>{1, 3}));
  use({.queue = 0});
  scheduler_->submit(5, job_of(prompt_of(4), 5));
  EXPECT_EQ(errors_.count(5), 0U);
  run();
}

TEST_F(SchedulerTest, WhatNeverFitsIsRefused) {
  use({.memory = 1000});
  scheduler_->submit(1, job_of(prompt_of(40), 5));
  EXPECT_EQ(errors_[1].refusal, Refusal::bad_request);
  EXPECT_FALSE(scheduler_->step());
}

TEST_F(SchedulerTest, ACancelledRequestIsGoneAtOnceWaitingOrRunning) {
  use({.max_sequences = 2});
  const Job job = job_of(prompt_of(30), 100);
  for (RequestId id = 1; id <= 3; ++id) scheduler_->submit(id, job);
  scheduler_->step();
  scheduler_->cancel(3);
  EXPECT_EQ(scheduler_->waiting(), 0U);
  scheduler_->cancel(1);
  EXPECT_EQ(scheduler_->running(), 1U);
  EXPECT_EQ(scheduler_->bytes(), job.prompts[0].cost);
  scheduler_->cancel(17);
  run();
  EXPECT_EQ(ended_, (std::vector<RequestId>{2}));
  expect_as_alone(2, job);
}

// A session that cannot be made, and a step that cannot start because of one feed, are that request's own.
TEST_F(SchedulerTest, ARequestFailsAlone) {
  use({});
  const Job good = job_of(prompt_of(30), 10);
  Job outside = good, impossible = good;
  outside.prompts[0].tokens[20] = 100000;
  impossible.policy = parse_policy("a2sf:budget=24:sink=30").value();
  scheduler_->submit(1, good);
  scheduler_->submit(2, outside);
  scheduler_->submit(3, impossible);
  scheduler_->submit(4, good);
  run();
  EXPECT_EQ(errors_.size(), 2U);
  EXPECT_THAT(errors_[2].message, HasSubstr("100000"));
  EXPECT_EQ(errors_[3].refusal, Refusal::bad_request);
  for (const RequestId id : {1, 4}) expect_as_alone(id, good);
}

TEST_F(SchedulerTest, UsageSaysWhatWasKept) {
  use({});
  scheduler_->submit(1, job_of(prompt_of(100), 1, "a2sf:budget=24"));
  scheduler_->submit(2, job_of(prompt_of(100), 1, "full"));
  run();
  const SequenceEnd bounded = *told_[{1, 0}].end, full = *told_[{2, 0}].end;
  EXPECT_EQ(bounded.prompt_tokens, 100U);
  EXPECT_EQ(bounded.retained, 24);
  EXPECT_EQ(bounded.evicted, 76);
  EXPECT_EQ(full.retained, 100);
  EXPECT_EQ(full.evicted, 0);
  EXPECT_LT(bounded.kv_bytes, full.kv_bytes);
}

}  // namespace
}  // namespace a2sf::serve
