// What the scheduler works on: a request whose every question is answered.
#pragma once

#include <a2sf/session.h>
#include <a2sf/text.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/generate.h"
#include "serve/cache_view.h"
#include "serve/error.h"

namespace a2sf::serve {

using Clock = std::chrono::steady_clock;
using RequestId = std::uint64_t;

struct JobPrompt {
  std::vector<Token> tokens;  // at least one
  std::uint64_t cost = 0;     // Job::cost() of a sequence that begins so
  std::size_t shared = 0;     // so many first tokens are those of other sequences too; 0: it is not known
};

struct Job {
  std::vector<JobPrompt> prompts = {};  // at least one
  std::size_t choices = 1;              // of each prompt: sequence i continues prompt i / choices
  PolicySpec policy = {};
  KvType kv_type = KvType::f16;
  SamplerOptions sampler = {};  // of the first choice; the others have the seeds after its own
  GenerateOptions generate = {};
  bool scores_prompt = false;  // with generate.logprobs: the tokens of the prompt too
  bool is_viewed = false;      // what the caches hold is told
  bool resumes = false;        // may go on from a cache that was kept, and has its own kept
  std::string owner = {};      // whose caches these are
  std::int32_t priority = 0;   // the lowest starts first
  Clock::time_point arrived = Clock::now();

  std::size_t sequences() const { return prompts.size() * choices; }
  const JobPrompt& prompt_of(std::size_t sequence) const { return prompts[sequence / choices]; }
  // Of the sequence that begins with a prompt of so many tokens: its options, and the bytes of its cache at its
  // longest. One that is gone on from may become longer.
  SessionOptions session_options(std::size_t prompt_tokens) const;
  Result<std::uint64_t> cost(const ModelInfo& model, std::size_t prompt_tokens) const;
};

// A token of a prompt or an answer; the first of a prompt follows nothing that could say how likely it was.
struct ScoredToken {
  Token token;
  std::optional<TokenChoice> choice;
};

// How a sequence ended, and what it took.
struct SequenceEnd {
  StopReason reason;
  std::size_t prompt_tokens = 0, generated_tokens = 0;
  double retained = 0, evicted = 0;  // tokens, the mean over layers and KV heads
  std::uint64_t kv_bytes = 0;        // the most that its cache took
  std::size_t cached_tokens = 0;     // of the prompt, which a kept cache had read
};

// What has become of a request since the last event: of one of its sequences, or of all where it is an error.
struct Event {
  std::size_t sequence = 0;
  std::string text = {};                 // that became complete
  std::vector<ScoredToken> tokens = {};  // that came, where their log-probabilities are wanted
  std::optional<CacheView> view = {};    // where it is told
  std::optional<SequenceEnd> end = {};
  std::optional<RequestError> error = {};  // the last event of the request
};

// Makes it one with an event of the same sequence that is waiting, if there is one.
void add(std::vector<Event>& waiting, Event event);

}  // namespace a2sf::serve
