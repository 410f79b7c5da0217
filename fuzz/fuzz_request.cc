// Any bytes as a body of each endpoint: an error that names what is wrong in one line, or a request within its limits
// whose policy is one that reads no file.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "serve/cache_choice.h"
#include "serve/request.h"

namespace {

using namespace a2sf::serve;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

void require_limits(const ServeRequest& request) {
  require(request.prompts.empty() != request.messages.empty());
  require(request.choices >= 1 && request.choices * request.prompts.size() <= kMostSequences);
  require(request.sampler.temperature >= 0 && request.sampler.top_p > 0 && request.sampler.top_p <= 1);
  require(request.sampler.min_p >= 0 && request.sampler.min_p <= 1 && request.sampler.top_k >= 0);
  require(request.sampler.repeat_penalty > 0);
  require(!request.logprobs || *request.logprobs <= kMostLogprobs);
  require(!request.stop || request.stop->size() <= kMostStops);
  for (const auto& [token, bias] : request.sampler.logit_bias) require(token >= 0 && bias >= -100 && bias <= 100);
}

void require_policy(const ServeRequest& request) {
  const auto chosen = choose_policy(request.cache, {}, 0, 0);
  if (!chosen) return require(!chosen.error().message.empty());
  require(chosen->spec.budget_table() == nullptr && chosen->spec.profile() == nullptr && !chosen->spec.has_ratio());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  for (const Endpoint endpoint : {Endpoint::completion, Endpoint::chat}) {
    const auto request = parse_request(endpoint, body, {});
    if (!request) {
      require(!request.error().message.empty() && request.error().refusal == Refusal::bad_request);
      continue;
    }
    require_limits(*request);
    require_policy(*request);
  }
  return 0;
}
