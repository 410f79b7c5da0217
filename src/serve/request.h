// A body of /v1/completions or /v1/chat/completions as a value. Everything in it is a stranger's: what cannot be used
// is an error that names the field; fields that are not known are counted and mean nothing.
#pragma once

#include <a2sf/policy.h>
#include <a2sf/text.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "serve/error.h"

namespace a2sf::serve {

enum class Endpoint { completion, chat };

using Prompt = std::variant<std::string, std::vector<Token>>;

// The object `a2sf` of a request: how its cache is bounded, where that is not the server's own way.
struct CacheChoice {
  std::optional<std::string> policy, profile;
  std::vector<PolicyOption> options = {};  // of the policy, as set_option() takes them
  bool pin_system = false;                 // pin: "system"
  bool is_viewed = false;                  // what the cache holds is told in the stream
};

struct ServeRequest {
  Endpoint endpoint;
  std::string model = {};                  // empty: not said
  std::vector<Prompt> prompts = {};        // of a completion: at least one
  std::vector<ChatMessage> messages = {};  // of a chat: at least one
  std::optional<std::size_t> max_tokens = {};
  SamplerOptions sampler = {};  // the server's own, but for what the request says; its seed does not count
  std::optional<std::uint32_t> seed = {};
  std::size_t choices = 1;  // `n`: of each prompt
  std::optional<std::vector<std::string>> stop = {};
  std::optional<std::size_t> logprobs = {};  // so many of the likeliest tokens in every place
  std::int32_t priority = 0;                 // the lowest first
  bool ignore_eos = false, echo = false, stream = false, include_usage = false;
  CacheChoice cache = {};
  std::size_t unknown_fields = 0;
};

inline constexpr std::size_t kMostSequences = 256;  // prompts times choices of a request
inline constexpr std::size_t kMostStops = 32, kLongestStop = 1024;
inline constexpr std::size_t kMostLogprobs = 20;

// `defaults`: how tokens are drawn where the request does not say.
Parsed<ServeRequest> parse_request(Endpoint endpoint, std::string_view body, const SamplerOptions& defaults);

// A prompt or a list of them.
class Fields;
std::vector<Prompt> take_prompts(Fields& fields, const char* name);
std::vector<ChatMessage> take_messages(Fields& fields);

}  // namespace a2sf::serve
