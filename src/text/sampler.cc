#include <a2sf/text.h>
#include <fmt/format.h>
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <unordered_map>
#include <utility>

#include "core/libllama.h"

namespace a2sf {
namespace {

constexpr int kPenaltyWindow = 64;
// Below this, two float logits that differ at all differ by so much that the draw is the argmax; dividing would
// overflow.
constexpr float kGreedyTemperature = 1e-6F;
// No model has logits like these; with them, no option takes a sum of exponentials out of range.
constexpr float kLargestLogit = 1e9F;

struct FreeChain {
  void operator()(llama_sampler* chain) const { llama_sampler_free(chain); }
};
using Chain = std::unique_ptr<llama_sampler, FreeChain>;

// Every comparison with NaN is false, so each check asks for what is allowed.
Status check(bool allowed, const char* option, double value, const char* range) {
  if (allowed) return {};
  return fail(ErrorKind::bad_input, fmt::format("{} is {}; allowed is {}", option, value, range));
}

Status check_bias(const SamplerOptions& options, int vocabulary_size) {
  for (const auto& [token, bias] : options.logit_bias) {
    const bool in_range = (bias >= -100 && bias <= 100) || bias == -INFINITY;
    if (Status status = check(in_range, "logit_bias", bias, "-100 to 100"); !status) return status;
    if (token < 0 || token >= vocabulary_size)
      return fail(ErrorKind::bad_input,
                  fmt::format("logit_bias of token {}, which is outside the vocabulary of {}", token, vocabulary_size));
  }
  return {};
}

Status check_options(const SamplerOptions& o) {
  const auto finite = [](float value) { return std::isfinite(value); };
  const auto within = [](float value, float most) { return value >= -most && value <= most; };
  const Status checks[] = {
      check(o.temperature >= 0 && finite(o.temperature), "temperature", o.temperature,
            "0 (greedy) or a finite number above 0"),
      check(o.top_k >= 0, "top_k", o.top_k, "0 (off) or a positive number"),
      check(o.top_p > 0 && o.top_p <= 1, "top_p", o.top_p, "above 0 and up to 1 (off)"),
      check(o.min_p >= 0 && o.min_p <= 1, "min_p", o.min_p, "0 (off) to 1"),
      check(o.repeat_penalty > 0 && finite(o.repeat_penalty), "repeat_penalty", o.repeat_penalty,
            "a finite number above 0; 1 is off"),
      check(within(o.presence_penalty, 2), "presence_penalty", o.presence_penalty, "-2 to 2; 0 is off"),
      check(within(o.frequency_penalty, 2), "frequency_penalty", o.frequency_penalty, "-2 to 2; 0 is off"),
  };
  for (const Status& status : checks) {
    if (!status) return status;
  }
  return {};
}

// The one seed that libllama takes as a wish for a random one.
std::uint32_t fixed_seed(std::uint32_t seed) { return seed == LLAMA_DEFAULT_SEED ? LLAMA_DEFAULT_SEED - 1 : seed; }

// The order of llama.cpp's default chain, which its users' settings are made for.
Chain build_chain(const SamplerOptions& options, int vocabulary_size) {
  Chain chain(llama_sampler_chain_init(llama_sampler_chain_default_params()));
  const auto add = [&](llama_sampler* sampler) { llama_sampler_chain_add(chain.get(), sampler); };
  if (options.repeat_penalty != 1) {
    add(llama_sampler_init_penalties(vocabulary_size, kPenaltyWindow, options.repeat_penalty, 0, 0));
  }
  if (options.temperature < kGreedyTemperature) {
    add(llama_sampler_init_greedy());
    return chain;
  }
  if (options.top_k > 0) add(llama_sampler_init_top_k(options.top_k));
  if (options.top_p < 1) add(llama_sampler_init_top_p(options.top_p, 1));
  if (options.min_p > 0) add(llama_sampler_init_min_p(options.min_p, 1));
  add(llama_sampler_init_temp(options.temperature));
  add(llama_sampler_init_dist(fixed_seed(options.seed)));
  return chain;
}

// NaN and infinities would break the sorting inside libllama.
float to_finite(float logit) {
  return std::isnan(logit) ? -kLargestLogit : std::clamp(logit, -kLargestLogit, kLargestLogit);
}

}  // namespace

struct Sampler::State {
  Chain chain;
  std::vector<llama_token_data> candidates;  // kept between tokens: a few MB for a large vocabulary
  std::vector<TokenBias> bias;
  float presence_penalty, frequency_penalty;
  std::unordered_map<Token, int> drawn;  // how often, where one of the two asks

  bool counts() const { return presence_penalty != 0 || frequency_penalty != 0; }

  void shift(Token token, float by) {
    const auto at = static_cast<std::size_t>(token);
    if (at < candidates.size()) candidates[at].logit = to_finite(candidates[at].logit + by);
  }

  // What the options add to single logits, before the chain sorts them.
  void shift_all() {
    for (const auto& [token, by] : bias) shift(token, by);
    for (const auto& [token, times] : drawn)
      shift(token, -presence_penalty - frequency_penalty * static_cast<float>(times));
  }
};

void Sampler::Free::operator()(State* state) const { delete state; }

Sampler::Sampler(std::unique_ptr<State, Free> state) : state_(std::move(state)) {}

Result<Sampler> Sampler::create(const Tokenizer& tokenizer, const SamplerOptions& options) {
  if (Status status = check_options(options); !status) return tl::unexpected(status.error());
  if (Status status = check_bias(options, tokenizer.vocabulary_size()); !status) return tl::unexpected(status.error());
  try {
    initialise_libllama();
    std::unique_ptr<State, Free> state(new State{build_chain(options, tokenizer.vocabulary_size()),
                                                 {},
                                                 options.logit_bias,
                                                 options.presence_penalty,
                                                 options.frequency_penalty,
                                                 {}});
    state->candidates.reserve(static_cast<std::size_t>(tokenizer.vocabulary_size()));
    return Sampler(std::move(state));
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::out_of_memory, "no memory for a sampler");
  }
}

Token Sampler::sample(std::span<const float> logits) {
  if (logits.empty()) return LLAMA_TOKEN_NULL;
  std::vector<llama_token_data>& candidates = state_->candidates;
  candidates.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    candidates.push_back({static_cast<Token>(i), to_finite(logits[i]), 0.0F});
  }
  state_->shift_all();
  llama_token_data_array array{candidates.data(), candidates.size(), /*selected=*/-1, /*sorted=*/false};
  llama_sampler_apply(state_->chain.get(), &array);
  const Token token = array.data[array.selected].id;
  accept(token);
  if (state_->counts()) ++state_->drawn[token];
  return token;
}

void Sampler::accept(Token token) { llama_sampler_accept(state_->chain.get(), token); }

}  // namespace a2sf
