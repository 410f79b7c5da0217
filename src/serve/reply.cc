#include "serve/reply.h"

#include <fmt/format.h>

#include <ctime>
#include <iterator>
#include <utility>

#include "serve/logprobs.h"

namespace a2sf::serve {
namespace {

std::string sse(const Json& json) { return "data: " + dump(json) + "\n\n"; }

const char* type_of(Refusal refusal) {
  switch (refusal) {
    case Refusal::unauthorized:
      return "authentication_error";
    case Refusal::not_found:
      return "not_found_error";
    case Refusal::queue_full:
      return "rate_limit_error";
    case Refusal::failed:
      return "server_error";
    case Refusal::unavailable:
      return "service_unavailable_error";
    default:
      return "invalid_request_error";
  }
}

Json error_json(const RequestError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  return {{"error",
           {{"message", error.message},
            {"type", type_of(error.refusal)},
            {"param", or_null(error.param)},
            {"code", or_null(error.code)}}}};
}

Json finish_reason(const std::optional<SequenceEnd>& end) {
  if (!end) return nullptr;
  return end->reason == StopReason::length ? "length" : "stop";
}

}  // namespace

std::string error_document(const RequestError& error) { return dump(error_json(error)); }

std::string Reply::stream_error(const RequestError& error) { return sse(error_json(error)); }

Reply::Reply(ReplyForm form, const Tokenizer& tokenizer, RequestId id)
    : form_(std::move(form)),
      tokenizer_(tokenizer),
      id_(fmt::format("{}-{:x}-{:x}", form_.endpoint == Endpoint::chat ? "chatcmpl" : "cmpl", std::time(nullptr), id)),
      created_(std::time(nullptr)),
      answers_(form_.sequences),
      left_(form_.sequences) {
  for (std::size_t i = 0; i < answers_.size() && !form_.echo.empty(); ++i)
    answers_[i].text = form_.echo[i / form_.choices];
}

std::string Reply::take(Event event) {
  Answer& answer = answers_[event.sequence];
  answer.text += event.text;
  std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(answer.tokens));
  answer.end = event.end;
  if (event.end) --left_;
  if (!form_.stream) return done() ? whole() : "";
  std::string text;
  if (event.view) text = view_event(event.sequence, *event.view, !std::exchange(answer.is_viewed, true));
  // A view alone, of a token whose text is not complete.
  if (event.view && !event.end && answer.text.empty() && answer.tokens.empty()) return text;
  text += chunk(event.sequence, answer);
  answer.text.clear();
  answer.tokens.clear();
  answer.begun = true;
  return done() ? text + end_of_stream() : text;
}

// Of a name of its own: clients of the API do not look at it.
std::string Reply::view_event(std::size_t index, const CacheView& view, bool is_first) const {
  Json json = is_first ? form_.view : Json::object();
  json["index"] = index;
  json.update(view_json(view, tokenizer_));
  return "event: a2sf.view\n" + sse(json);
}

Json Reply::document(const char* object) const {
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", form_.model}};
}

Json Reply::usage() const {
  std::size_t prompt = 0, cached = 0, completion = 0;
  double retained = 0, evicted = 0;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < answers_.size(); ++i) {
    const SequenceEnd& end = *answers_[i].end;
    if (i % form_.choices == 0) {
      prompt += end.prompt_tokens;
      cached += end.cached_tokens;
    }
    completion += end.generated_tokens;
    retained += end.retained;
    evicted += end.evicted;
    bytes += end.kv_bytes;
  }
  Json json = {{"prompt_tokens", prompt}, {"completion_tokens", completion}, {"total_tokens", prompt + completion}};
  json["prompt_tokens_details"] = {{"cached_tokens", cached}};
  json["a2sf"] = form_.cache;
  json["a2sf"].update({{"tokens_retained", retained}, {"tokens_evicted", evicted}, {"kv_bytes", bytes}});
  return json;
}

Json Reply::choice(std::size_t index, Answer& answer, bool is_chunk) {
  Json json = {{"index", index}};
  if (form_.endpoint == Endpoint::completion) {
    json["text"] = answer.text;
  } else if (is_chunk) {
    json["delta"] = {{"content", answer.text}};
    if (!answer.begun) json["delta"]["role"] = "assistant";
  } else {
    json["message"] = {{"role", "assistant"}, {"content", answer.text}};
  }
  json["logprobs"] = nullptr;
  if (form_.logprobs) {
    json["logprobs"] = form_.endpoint == Endpoint::chat
                           ? chat_logprobs(tokenizer_, answer.tokens)
                           : completion_logprobs(tokenizer_, answer.tokens, answer.characters);
  }
  json["finish_reason"] = finish_reason(answer.end);
  return json;
}

std::string Reply::chunk(std::size_t index, Answer& answer) {
  Json json = document(form_.endpoint == Endpoint::chat ? "chat.completion.chunk" : "text_completion");
  json["choices"] = Json::array({choice(index, answer, true)});
  if (form_.include_usage) json["usage"] = nullptr;
  return sse(json);
}

std::string Reply::end_of_stream() const {
  std::string text;
  if (form_.include_usage) {
    Json json = document(form_.endpoint == Endpoint::chat ? "chat.completion.chunk" : "text_completion");
    json["choices"] = Json::array();
    json["usage"] = usage();
    text = sse(json);
  }
  return text + "data: [DONE]\n\n";
}

std::string Reply::whole() {
  Json json = document(form_.endpoint == Endpoint::chat ? "chat.completion" : "text_completion");
  json["choices"] = Json::array();
  for (std::size_t i = 0; i < answers_.size(); ++i) json["choices"].push_back(choice(i, answers_[i], false));
  json["usage"] = usage();
  return dump(json);
}

}  // namespace a2sf::serve
