// Texts as tokens and back, for clients.
#include <fmt/format.h>

#include "serve/reader.h"

namespace a2sf::serve {

std::string RequestReader::text_of(const std::vector<Token>& tokens) const {
  TextStream stream;
  std::string text;
  for (const Token token : tokens) text += stream.push(tokenizer_.piece(token, true));
  return text + stream.flush();
}

Parsed<Json> RequestReader::tokenize(std::string_view body) const {
  const auto json = parse_object(body);
  if (!json) return tl::unexpected(json.error());
  Fields fields(*json);
  const bool is_chat = fields.find("messages") != nullptr, has_prompt = fields.find("prompt") != nullptr;
  const char* field = is_chat ? "messages" : has_prompt ? "prompt" : "content";
  std::vector<ChatMessage> messages;
  std::string text;
  if (is_chat) {
    messages = take_messages(fields);
  } else {
    const auto given = fields.text(field);
    if (!given) fields.refuse(field, "should be a string");
    text = given.value_or("");
  }
  // The two servers whose shapes these are add a beginning unless told otherwise, and do not.
  const bool adds = fields.flag(has_prompt ? "add_special_tokens" : "add_special", has_prompt);
  const bool parses = fields.flag("parse_special", true), opens = fields.flag("add_generation_prompt", true);
  if (fields.error()) return tl::unexpected(*fields.error());
  const auto tokens = is_chat ? tokenizer_.encode_chat(messages, opens) : tokenizer_.encode(text, adds, parses);
  if (!tokens) return refuse(field, fmt::format("{}: {}", field, tokens.error().message));
  return Json{{"tokens", *tokens}, {"count", tokens->size()}, {"max_model_len", model_.context}};
}

Parsed<Json> RequestReader::detokenize(std::string_view body) const {
  const auto json = parse_object(body);
  if (!json) return tl::unexpected(json.error());
  Fields fields(*json);
  const Json* list = fields.find("tokens");
  std::vector<Token> tokens;
  if (list == nullptr || !list->is_array()) fields.refuse("tokens", "should be a list of token ids");
  for (std::size_t i = 0; !fields.error() && i < list->size(); ++i) {
    const Json& id = (*list)[i];
    if (id.is_number_unsigned() && id.get<std::uint64_t>() < static_cast<std::uint64_t>(model_.vocabulary)) {
      tokens.push_back(id.get<Token>());
    } else {
      fields.refuse("tokens", fmt::format("should be ids below the vocabulary of {}", model_.vocabulary));
    }
  }
  if (fields.error()) return tl::unexpected(*fields.error());
  const std::string text = text_of(tokens);
  return Json{{"content", text}, {"prompt", text}};
}

}  // namespace a2sf::serve
