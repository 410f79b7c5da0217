// One sequence of a request that is being worked on: it reads its prompt in chunks, then decodes.
#pragma once

#include <a2sf/batch.h>

#include <memory>
#include <optional>
#include <span>

#include "serve/job.h"

namespace a2sf::serve {

// The model and the tokenizer must outlive it.
class Sequence {
 public:
  // `resumed`: a session of the job's options that has read the beginning of its prompt.
  static Result<std::unique_ptr<Sequence>> create(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                                                  std::shared_ptr<const Job> job, std::size_t number,
                                                  std::optional<Session> resumed = {});

  const Job& job() const { return *job_; }
  const JobPrompt& begins() const { return job_->prompt_of(number_); }
  bool reads() const { return fed_ < prompt().size(); }
  // Its part of the next step: a chunk of its prompt of at most `rows` tokens, or the token that was drawn last. Valid
  // until take().
  Feed feed(std::size_t rows);
  // What came of the feed.
  Event take(std::span<const float> logits);

  // Whether it has read just the tokens that it shares with other sequences.
  bool at_shared() const { return fed_ > cached_ && fed_ == begins().shared; }
  const Session& session() const { return session_; }
  std::vector<Token> tokens() const;                     // that the session has read
  Session end_session() { return std::move(session_); }  // of a sequence that is over

 private:
  Sequence(const ModelInfo& model, const Tokenizer& tokenizer, std::shared_ptr<const Job> job, std::size_t number,
           Session session, Sampler sampler);
  const std::vector<Token>& prompt() const { return begins().tokens; }
  void score_prompt(std::span<const float> logits, Event& event) const;
  void draw(std::span<const float> logits, Event& event);
  void tell_view(Event& event);
  Token token_at(std::size_t position) const;
  SequenceEnd end() const;

  const ModelInfo& model_;
  std::shared_ptr<const Job> job_;
  std::size_t number_;
  Session session_;
  Sampler sampler_;
  Generator generator_;
  std::span<const Token> feeding_;
  std::size_t cached_ = 0;  // tokens of the prompt that the session began with
  std::size_t fed_ = 0;     // tokens of the prompt
  Token drawn_ = -1;
  std::size_t told_ = 0;  // tokens, where the cache is viewed
};

}  // namespace a2sf::serve
