#include "serve/request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "serve/cache_choice.h"
#include "serve/fields.h"

namespace a2sf::serve {
namespace {

constexpr std::int64_t kMostTokens = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kMostBiases = 1024;

void take_sampling(Fields& fields, ServeRequest& request) {
  constexpr double kHottest = 100, kTiny = 1e-6;
  SamplerOptions& sampler = request.sampler;
  const auto take = [&](const char* name, float& option, double least, double most) {
    if (const auto number = fields.number(name, least, most)) option = static_cast<float>(*number);
  };
  take("temperature", sampler.temperature, 0, kHottest);
  take("top_p", sampler.top_p, kTiny, 1);
  take("min_p", sampler.min_p, 0, 1);
  take("presence_penalty", sampler.presence_penalty, -2, 2);
  take("frequency_penalty", sampler.frequency_penalty, -2, 2);
  take("repetition_penalty", sampler.repeat_penalty, kTiny, kHottest);
  take("repeat_penalty", sampler.repeat_penalty, kTiny, kHottest);
  if (const auto top_k = fields.whole("top_k", -1, kMostTokens))  // -1 is what some servers call off
    sampler.top_k = static_cast<int>(std::max<std::int64_t>(*top_k, 0));
  constexpr std::int64_t kLargestSeed = std::int64_t{1} << 62U;
  if (const auto seed = fields.whole("seed", -kLargestSeed, kLargestSeed))
    request.seed = static_cast<std::uint32_t>(*seed);
}

void take_logit_bias(Fields& fields, ServeRequest& request) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > kMostBiases)
    return fields.refuse("logit_bias", fmt::format("should have at most {} tokens", kMostBiases));
  for (const auto& [id, value] : bias->items()) {
    Token token = -1;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), token);
    const bool is_id = error == std::errc() && end == id.data() + id.size() && token >= 0;
    const double by = value.is_number() ? value.get<double>() : NAN;
    if (!is_id || !(by >= -100 && by <= 100))
      return fields.refuse("logit_bias", "should map token ids to numbers from -100 to 100");
    request.sampler.logit_bias.push_back({token, static_cast<float>(by)});
  }
}

void take_stop(Fields& fields, ServeRequest& request) {
  const Json* stop = fields.find("stop");
  if (stop == nullptr) return;
  const auto is_stop = [](const Json& text) {
    return text.is_string() && text.get_ref<const std::string&>().size() <= kLongestStop;
  };
  request.stop.emplace();
  if (is_stop(*stop)) {
    request.stop->push_back(stop->get<std::string>());
  } else if (stop->is_array() && stop->size() <= kMostStops && std::all_of(stop->begin(), stop->end(), is_stop)) {
    request.stop = stop->get<std::vector<std::string>>();
  } else {
    fields.refuse("stop", fmt::format("should be a string or at most {} of them, each of at most {} bytes", kMostStops,
                                      kLongestStop));
  }
}

void take_logprobs(Fields& fields, ServeRequest& request) {
  if (request.endpoint == Endpoint::completion) {
    if (const auto count = fields.whole("logprobs", 0, kMostLogprobs))
      request.logprobs = static_cast<std::size_t>(*count);
    return;
  }
  const bool wanted = fields.flag("logprobs", false);
  const auto count = fields.whole("top_logprobs", 0, kMostLogprobs);
  if (wanted) request.logprobs = static_cast<std::size_t>(count.value_or(0));
  if (count && !wanted) fields.refuse("top_logprobs", "needs logprobs: true");
}

void take_lengths(Fields& fields, ServeRequest& request) {
  const bool is_chat = request.endpoint == Endpoint::chat;
  auto most = fields.whole("max_tokens", is_chat ? 1 : 0, kMostTokens);
  if (is_chat) {
    if (const auto newer = fields.whole("max_completion_tokens", 1, kMostTokens)) most = newer;
  }
  if (most) request.max_tokens = static_cast<std::size_t>(*most);
  request.choices = static_cast<std::size_t>(fields.whole("n", 1, kMostSequences).value_or(1));
  if (request.choices * request.prompts.size() > kMostSequences)
    fields.refuse("n", fmt::format("prompts times n should be at most {}", kMostSequences));
}

void take_stream(Fields& fields, ServeRequest& request) {
  request.stream = fields.flag("stream", false);
  const Json* object = fields.object("stream_options");
  if (object == nullptr) return;
  Fields options(*object, "stream_options.");
  request.include_usage = options.flag("include_usage", false);
  if (options.error()) fields.refuse("stream_options", options.error()->message);
  request.unknown_fields += options.unknown();
}

// What would change the answer and is not there: better refused than ignored.
void refuse_what_is_missing(Fields& fields) {
  for (const char* name : {"tools", "functions", "suffix", "grammar"}) {
    const Json* value = fields.find(name);
    const auto* text = value == nullptr ? nullptr : value->get_ptr<const std::string*>();
    const bool is_empty = value == nullptr || (text == nullptr ? value->empty() : text->empty());
    if (!is_empty) fields.refuse(name, "is not supported");
  }
  if (const Json* format = fields.object("response_format")) {
    if (format->value("type", Json()) != "text") fields.refuse("response_format", "only the type text is supported");
  }
}

}  // namespace

Parsed<ServeRequest> parse_request(Endpoint endpoint, std::string_view body, const SamplerOptions& defaults) {
  const auto json = parse_object(body);
  if (!json) return tl::unexpected(json.error());
  Fields fields(*json);
  ServeRequest request{.endpoint = endpoint, .sampler = defaults};
  request.model = fields.text("model").value_or("");
  if (endpoint == Endpoint::chat) {
    request.messages = take_messages(fields);
  } else {
    request.prompts = take_prompts(fields, "prompt");
    request.echo = fields.flag("echo", false);
  }
  take_sampling(fields, request);
  take_logit_bias(fields, request);
  take_stop(fields, request);
  take_logprobs(fields, request);
  take_lengths(fields, request);
  take_stream(fields, request);
  request.ignore_eos = fields.flag("ignore_eos", false);
  request.priority = static_cast<std::int32_t>(fields.whole("priority", INT32_MIN, INT32_MAX).value_or(0));
  refuse_what_is_missing(fields);
  if (const Json* object = fields.object("a2sf")) {
    Fields own(*object, "a2sf.");
    request.cache = take_cache_choice(own);
    if (own.error() && !fields.error()) return tl::unexpected(*own.error());
    request.unknown_fields += own.unknown();
  }
  if (fields.error()) return tl::unexpected(*fields.error());
  request.unknown_fields += fields.unknown();
  return request;
}

}  // namespace a2sf::serve
