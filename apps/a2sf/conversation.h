// A conversation whose cache is kept from turn to turn: only tokens that are new are fed.
#pragma once

#include "engine/generate.h"

#include <a2sf/a2sf.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf::app {

struct ConversationOptions {
  std::string system;
  SessionOptions session;
  SamplerOptions sampler;
  std::vector<std::string> stop;
  std::int64_t tokens = 1024;  // of an answer at most; -1: what the model's context has room for
};

// Errors end the command.
class Conversation {
 public:
  Conversation(ConversationOptions options, std::shared_ptr<const Model> model, Tokenizer tokenizer);

  // As it began.
  void reset();

  // What the model says to `text`; `show` is that of generate(). An interruption leaves what was said until then.
  Generation answer(const std::string& text, const std::function<bool(std::string_view)>& show);

  // Nothing more fits into the context that the tokens of an answer are limited by.
  bool is_full() const;
  const Session& session() const { return *session_; }

 private:
  void forget();
  bool read(const std::vector<Token>& tokens);
  void warn_once(std::size_t length);

  ConversationOptions options_;
  std::shared_ptr<const Model> model_;
  Tokenizer tokenizer_;
  std::optional<Sampler> sampler_;
  std::optional<Session> session_;
  std::vector<ChatMessage> messages_;
  std::vector<Token> fed_;    // what the session has seen
  std::size_t accepted_ = 0;  // tokens of the conversation that the sampler knows: an answer's last one is not fed
  bool warned_ = false;
};

}  // namespace a2sf::app
