#include "serve/logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace a2sf::serve {
namespace {

// A token's text, or where that is a part of a character, its bytes: "bytes:\xe2\x96".
std::string written(const std::string& piece) {
  if (!find_invalid_utf8(piece)) return piece;
  std::string text = "bytes:";
  for (const char byte : piece) fmt::format_to(std::back_inserter(text), "\\x{:02x}", static_cast<unsigned char>(byte));
  return text;
}

std::size_t characters_of(const std::string& piece) {
  const auto begins = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U; };
  return static_cast<std::size_t>(std::count_if(piece.begin(), piece.end(), begins));
}

Json token_json(const Tokenizer& tokenizer, Token token, double logprob) {
  const std::string piece = tokenizer.piece(token, true);
  return {{"token", written(piece)}, {"logprob", logprob}, {"bytes", bytes_of(piece)}};
}

Json top_json(const Tokenizer& tokenizer, const TokenChoice& choice) {
  Json top = Json::object();
  for (const auto& [token, logprob] : choice.top) top[written(tokenizer.piece(token, true))] = logprob;
  return top;
}

}  // namespace

Json bytes_of(const std::string& piece) {
  Json bytes = Json::array();
  for (const char byte : piece) bytes.push_back(static_cast<unsigned char>(byte));
  return bytes;
}

Json completion_logprobs(const Tokenizer& tokenizer, std::span<const ScoredToken> tokens, std::size_t& offset) {
  Json json = {{"tokens", Json::array()},
               {"token_logprobs", Json::array()},
               {"top_logprobs", Json::array()},
               {"text_offset", Json::array()}};
  for (const auto& [token, choice] : tokens) {
    const std::string piece = tokenizer.piece(token, true);
    json["tokens"].push_back(written(piece));
    json["token_logprobs"].push_back(choice ? Json(choice->logprob) : Json());
    json["top_logprobs"].push_back(choice ? top_json(tokenizer, *choice) : Json());
    json["text_offset"].push_back(offset);
    offset += characters_of(piece);
  }
  return json;
}

Json chat_logprobs(const Tokenizer& tokenizer, std::span<const ScoredToken> tokens) {
  Json content = Json::array();
  for (const auto& [token, choice] : tokens) {
    Json json = token_json(tokenizer, token, choice->logprob);
    json["top_logprobs"] = Json::array();
    for (const auto& [other, logprob] : choice->top)
      json["top_logprobs"].push_back(token_json(tokenizer, other, logprob));
    content.push_back(std::move(json));
  }
  return {{"content", std::move(content)}};
}

}  // namespace a2sf::serve
