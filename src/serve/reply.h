// What the API says of a request: one document, or a stream of server-sent events, made of the scheduler's events.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "serve/fields.h"
#include "serve/job.h"
#include "serve/request.h"

namespace a2sf::serve {

// What a reply needs to know of its request.
struct ReplyForm {
  Endpoint endpoint;
  std::string model;
  bool stream = false, include_usage = false;
  std::optional<std::size_t> logprobs = {};
  std::size_t sequences = 1, choices = 1;  // in all, of each prompt
  std::vector<std::string> echo = {};      // the text of each prompt, where it comes before its answers
  Json cache = {};                         // how the cache was bounded: the beginning of usage.a2sf
  Json view = {};                          // the beginning of the first view of each cache, where they are told
};

// {"error": {message, type, param, code}}
std::string error_document(const RequestError& error);

// The tokenizer must outlive it. Not thread safe.
class Reply {
 public:
  // `id`: another for every request of a server.
  Reply(ReplyForm form, const Tokenizer& tokenizer, RequestId id);

  bool streams() const { return form_.stream; }
  // What the client gets of an event: of a stream its chunks; else nothing until done(), then the document.
  std::string take(Event event);
  // An error in a stream that has begun.
  static std::string stream_error(const RequestError& error);
  bool done() const { return left_ == 0; }

 private:
  struct Answer {
    std::string text;
    std::vector<ScoredToken> tokens;
    std::optional<SequenceEnd> end;
    bool begun = false, is_viewed = false;
    std::size_t characters = 0;  // of what logprobs were written for
  };

  Json document(const char* object) const;
  Json usage() const;
  Json choice(std::size_t index, Answer& answer, bool is_chunk);
  std::string chunk(std::size_t index, Answer& answer);
  std::string view_event(std::size_t index, const CacheView& view, bool is_first) const;
  std::string end_of_stream() const;
  std::string whole();

  ReplyForm form_;
  const Tokenizer& tokenizer_;
  std::string id_;
  std::int64_t created_;
  std::vector<Answer> answers_;
  std::size_t left_;
};

}  // namespace a2sf::serve
