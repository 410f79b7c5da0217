// From a request's body to a job: tokens, policy and what it costs.
#pragma once

#include <a2sf/model.h>
#include <a2sf/text.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/cache_choice.h"
#include "serve/job.h"
#include "serve/metrics.h"
#include "serve/reply.h"
#include "serve/request.h"

namespace a2sf::serve {

// What holds where a request does not say otherwise, and what no request may have.
struct ReaderOptions {
  std::string model_name;
  CacheDefaults cache;
  bool pin_system = false;  // of conversations that have a system prompt
  KvType kv_type = KvType::f16;
  SamplerOptions sampler = {};
  std::optional<std::uint32_t> seed = {};  // nothing: another one every time
  std::vector<std::string> stop = {};
  std::uint64_t memory = 0;     // for all caches together
  bool keeps_prefixes = false;  // caches are kept for requests that go on from them
  bool has_priorities = false;  // requests may have one
};

struct ReadRequest {
  Job job;
  ReplyForm form;
};

// Thread safe. The model, the tokenizer and the metrics must outlive it.
class RequestReader {
 public:
  RequestReader(ReaderOptions options, const ModelInfo& model, const Tokenizer& tokenizer, Metrics& metrics);

  Parsed<ReadRequest> read(Endpoint endpoint, std::string_view body) const;

  // The documents of /tokenize and /detokenize.
  Parsed<Json> tokenize(std::string_view body) const;
  Parsed<Json> detokenize(std::string_view body) const;

 private:
  Parsed<std::vector<JobPrompt>> encode_prompts(const ServeRequest& request) const;
  Parsed<std::vector<Token>> encode(const Prompt& prompt) const;
  Result<std::size_t> system_tokens(const ServeRequest& request) const;
  Parsed<std::int64_t> pinned_tokens(const ServeRequest& request, const Result<std::size_t>& system) const;
  Parsed<std::size_t> answer_tokens(const ServeRequest& request, const std::vector<JobPrompt>& prompts) const;
  Parsed<void> price(Job& job) const;
  RequestError too_expensive(Job job, std::size_t prompt_tokens, std::uint64_t cost) const;
  Json view_form(Job job) const;
  std::vector<std::string> echo_of(const ServeRequest& request) const;
  std::string text_of(const std::vector<Token>& tokens) const;
  SamplerOptions sampler_of(const ServeRequest& request) const;

  const ReaderOptions options_;
  const ModelInfo& model_;
  const Tokenizer& tokenizer_;
  Metrics& metrics_;
  std::vector<TokenBias> no_end_;  // of every token that would end a generation
};

}  // namespace a2sf::serve
