#include "serve/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

namespace a2sf::serve {
namespace {

// Tokens of a request whose log-probabilities are kept for its answer.
constexpr std::size_t kMostScored = std::size_t{1} << 18;
constexpr std::size_t kCompletionTokens = 16;  // where the request does not say: what clients of the API expect

// Why the prompt, or the conversation, cannot be used.
tl::unexpected<RequestError> blame(const char* field, const Error& error) {
  if (error.kind == ErrorKind::out_of_memory)
    return tl::unexpected<RequestError>(RequestError{Refusal::failed, error.message});
  return refuse(field, fmt::format("{}: {}", field, error.message));
}

Parsed<void> check_view(const ServeRequest& request, const Job& job) {
  if (!request.stream) return refuse("a2sf.view", "a2sf.view: what a cache holds is told in a stream; ask for one");
  if (job.prompts.size() > 1) return refuse("a2sf.view", "a2sf.view: only the caches of one prompt can be told");
  if (job.policy.has_cold_tier())
    return refuse("a2sf.view", "a2sf.view: tokens come back from a cold tier, which is not told; leave out cold");
  return {};
}

// What sequences have in common: conversations their system prompt, the choices of a prompt all but its last token.
void find_shared(Job& job, std::size_t system_tokens) {
  for (JobPrompt& prompt : job.prompts) {
    const std::size_t before_last = prompt.tokens.size() - 1, system = system_tokens <= before_last ? system_tokens : 0;
    prompt.shared = job.choices > 1 ? before_last : system;
  }
}

}  // namespace

RequestReader::RequestReader(ReaderOptions options, const ModelInfo& model, const Tokenizer& tokenizer,
                             Metrics& metrics)
    : options_(std::move(options)), model_(model), tokenizer_(tokenizer), metrics_(metrics) {
  for (Token token = 0; token < tokenizer.vocabulary_size(); ++token) {
    if (tokenizer.is_end_of_generation(token)) no_end_.push_back({token, -INFINITY});
  }
}

Parsed<ReadRequest> RequestReader::read(Endpoint endpoint, std::string_view body) const {
  const auto request = parse_request(endpoint, body, options_.sampler);
  if (!request) return tl::unexpected(request.error());
  metrics_.count_unknown_fields(request->unknown_fields);
  if (!request->model.empty() && request->model != options_.model_name)
    return tl::unexpected<RequestError>(RequestError{
        Refusal::not_found, fmt::format("there is no model '{}'; there is '{}'", request->model, options_.model_name),
        "model", "model_not_found"});
  if (request->priority != 0 && !options_.has_priorities)
    return refuse("priority", "priority: who comes first is served first here; it needs --scheduling priority");
  auto prompts = encode_prompts(*request);
  if (!prompts) return tl::unexpected(prompts.error());
  const auto tokens = answer_tokens(*request, *prompts);
  if (!tokens) return tl::unexpected(tokens.error());
  std::size_t longest = 0;
  for (const JobPrompt& prompt : *prompts) longest = std::max(longest, prompt.tokens.size());
  const auto system = system_tokens(*request);
  const auto pin = pinned_tokens(*request, system);
  if (!pin) return tl::unexpected(pin.error());
  const auto chosen = choose_policy(request->cache, options_.cache, *pin, static_cast<std::int64_t>(longest + *tokens));
  if (!chosen) return tl::unexpected(chosen.error());

  Job job{.prompts = std::move(*prompts),
          .choices = request->choices,
          .policy = chosen->spec,
          .kv_type = options_.kv_type,
          .sampler = sampler_of(*request),
          .generate = {.tokens = *tokens, .stop = request->stop.value_or(options_.stop), .logprobs = request->logprobs},
          .scores_prompt = request->echo && request->logprobs,
          .is_viewed = request->cache.is_viewed,
          .priority = request->priority};
  if (job.is_viewed) {
    if (const auto valid = check_view(*request, job); !valid) return tl::unexpected(valid.error());
  }
  // Where it matters which tokens were a prompt, a turn that was answered is none any more.
  job.resumes = options_.keeps_prefixes && !job.policy.heeds_prompts() && !job.scores_prompt;
  if (job.resumes) find_shared(job, system.value_or(0));
  if (job.sequences() * (longest + *tokens) > kMostScored && job.generate.logprobs)
    return refuse("logprobs", fmt::format("logprobs: the tokens of all answers, and of prompts, would be more than {}",
                                          kMostScored));
  if (auto priced = price(job); !priced) return tl::unexpected(priced.error());
  if (const auto sampler = Sampler::create(tokenizer_, job.sampler); !sampler)
    return blame("logit_bias", sampler.error());
  ReplyForm form{.endpoint = endpoint,
                 .model = options_.model_name,
                 .stream = request->stream,
                 .include_usage = request->include_usage,
                 .logprobs = request->logprobs,
                 .sequences = job.sequences(),
                 .choices = job.choices,
                 .echo = request->echo ? echo_of(*request) : std::vector<std::string>(),
                 .cache = cache_json(*chosen),
                 .view = job.is_viewed ? view_form(job) : Json()};
  return ReadRequest{std::move(job), std::move(form)};
}

Parsed<std::vector<JobPrompt>> RequestReader::encode_prompts(const ServeRequest& request) const {
  std::vector<JobPrompt> prompts;
  if (request.endpoint == Endpoint::chat) {
    auto tokens = tokenizer_.encode_chat(request.messages, true);
    if (!tokens) return blame("messages", tokens.error());
    prompts.push_back({std::move(*tokens)});
    return prompts;
  }
  for (const Prompt& prompt : request.prompts) {
    auto tokens = encode(prompt);
    if (!tokens) return tl::unexpected(tokens.error());
    prompts.push_back({std::move(*tokens)});
  }
  return prompts;
}

// Whoever completes a raw text may write control tokens into it: there are no turns to forge.
Parsed<std::vector<Token>> RequestReader::encode(const Prompt& prompt) const {
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    auto tokens = tokenizer_.encode(*text, true, true);
    if (!tokens) return blame("prompt", tokens.error());
    if (tokens->empty()) return refuse("prompt", "prompt: should have at least one token");
    return std::move(*tokens);
  }
  const auto& tokens = std::get<std::vector<Token>>(prompt);
  for (const Token token : tokens) {
    if (token >= model_.vocabulary)
      return refuse("prompt",
                    fmt::format("prompt: token {} is outside the vocabulary of {}", token, model_.vocabulary));
  }
  return tokens;
}

std::vector<std::string> RequestReader::echo_of(const ServeRequest& request) const {
  std::vector<std::string> texts;
  for (const Prompt& prompt : request.prompts) {
    if (const auto* text = std::get_if<std::string>(&prompt)) {
      texts.push_back(*text);
    } else {
      texts.push_back(text_of(std::get<std::vector<Token>>(prompt)));
    }
  }
  return texts;
}

// What the request asks for, or what the context has room for.
Parsed<std::size_t> RequestReader::answer_tokens(const ServeRequest& request,
                                                 const std::vector<JobPrompt>& prompts) const {
  const char* field = request.endpoint == Endpoint::chat ? "messages" : "prompt";
  std::size_t longest = 0;
  for (const JobPrompt& prompt : prompts) longest = std::max(longest, prompt.tokens.size());
  const bool has_context = model_.context > 0;
  const auto context = static_cast<std::size_t>(model_.context);
  const auto too_long = [&](std::size_t answer) {
    return refuse(field,
                  fmt::format("{}: the model's context is {} tokens; the prompt has {}, with {} for the answer", field,
                              context, longest, answer),
                  "context_length_exceeded");
  };
  if (request.max_tokens) {
    if (has_context && longest + *request.max_tokens > context) return too_long(*request.max_tokens);
    return *request.max_tokens;
  }
  if (request.endpoint == Endpoint::completion && (!has_context || longest + kCompletionTokens <= context))
    return kCompletionTokens;
  if (!has_context) return refuse("max_tokens", "max_tokens: the model does not say how long its context is");
  if (longest >= context) return too_long(1);
  return context - longest;
}

// With which the conversation begins; 0: it has no system prompt.
Result<std::size_t> RequestReader::system_tokens(const ServeRequest& request) const {
  if (request.messages.empty() || request.messages.front().role != "system") return 0;
  return tokenizer_.system_prompt_length(request.messages.front().content);
}

// A server's own wish is for conversations that have a system prompt; a request's is an order.
Parsed<std::int64_t> RequestReader::pinned_tokens(const ServeRequest& request,
                                                  const Result<std::size_t>& system) const {
  const bool has_system = !system || *system > 0;
  const bool pins_itself = std::any_of(request.cache.options.begin(), request.cache.options.end(),
                                       [](const PolicyOption& option) { return option.name == "pin"; });
  if (!request.cache.pin_system && (!options_.pin_system || pins_itself || !has_system)) return 0;
  if (!has_system) return refuse("a2sf.pin", "a2sf.pin: there is no system prompt to pin");
  if (!system) return blame("a2sf.pin", system.error());
  return static_cast<std::int64_t>(*system);
}

Parsed<void> RequestReader::price(Job& job) const {
  for (JobPrompt& prompt : job.prompts) {
    const auto cost = job.cost(model_, prompt.tokens.size());
    if (!cost) return blame("a2sf", cost.error());
    if (*cost > options_.memory) return tl::unexpected(too_expensive(job, prompt.tokens.size(), *cost));
    prompt.cost = *cost;
  }
  return {};
}

// Costs grow with budgets.
RequestError RequestReader::too_expensive(Job job, std::size_t prompt_tokens, std::uint64_t cost) const {
  const auto tokens = static_cast<std::int64_t>(prompt_tokens + job.generate.tokens);
  const auto fits = [&](std::int64_t budget) {
    auto* shares = std::get_if<BudgetShares>(&job.policy.budget.budget);
    if (shares != nullptr) shares->mean = BudgetCount{budget};
    if (shares == nullptr) job.policy.budget.budget = BudgetCount{budget};
    const auto bytes = job.cost(model_, prompt_tokens);
    return bytes && *bytes <= options_.memory;
  };
  std::int64_t fitting = 0;
  for (std::int64_t step = std::int64_t{1} << 30U; step > 0; step /= 2) {
    if (fitting + step <= tokens && fits(fitting + step)) fitting += step;
  }
  const std::string would = fitting > 0 && !job.policy.keeps_all() ? fmt::format("a budget of {} would fit", fitting)
                                                                   : "fewer tokens or another policy may fit";
  return {Refusal::bad_request,
          fmt::format("a2sf.budget: the cache of {} tokens would take {} bytes, all caches together may take {}; {}",
                      tokens, cost, options_.memory, would),
          "a2sf.budget", "cache_too_large"};
}

// What a client needs to know of caches before it is told what they hold.
Json RequestReader::view_form(Job job) const {
  const JobPrompt& prompt = job.prompts.front();
  job.policy = parse_policy("full").value();
  const auto full_bytes = job.cost(model_, prompt.tokens.size());
  return {{"layers", model_.layers},
          {"kv_heads", model_.kv_heads},
          {"most_bytes", prompt.cost},
          {"full_bytes", full_bytes ? Json(*full_bytes) : Json()}};
}

SamplerOptions RequestReader::sampler_of(const ServeRequest& request) const {
  SamplerOptions sampler = request.sampler;
  const auto seed = request.seed ? request.seed : options_.seed;
  sampler.seed = seed ? *seed : std::random_device()();
  if (request.ignore_eos) sampler.logit_bias.insert(sampler.logit_bias.end(), no_end_.begin(), no_end_.end());
  return sampler;
}

}  // namespace a2sf::serve
