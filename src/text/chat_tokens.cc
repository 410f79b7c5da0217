// The tokens of a conversation: what the template adds is read with its control tokens, what the messages say is text.
#include <a2sf/text.h>
#include <fmt/format.h>
#include <llama.h>

#include <algorithm>
#include <charconv>

namespace a2sf {
namespace {

// A placeholder stands for a message in a rendering, so that the template's own text can be told apart from it.
constexpr char kBegin = '\x02', kEnd = '\x03';
// What templates trim.
constexpr std::string_view kWhiteSpace = " \t\n\v\f\r";

std::size_t leading_white_space(std::string_view text) {
  return std::min(text.find_first_not_of(kWhiteSpace), text.size());
}

std::string_view trimmed(std::string_view text) {
  text.remove_prefix(leading_white_space(text));
  return text.substr(0, text.find_last_not_of(kWhiteSpace) + 1);
}

// The white space around a text stays, for the template to trim if it does; around tokens it is part of them. A message
// that says nothing stays as it is: templates ask for that.
std::string with_placeholder(const ChatMessage& message, std::size_t index) {
  const std::string placeholder = fmt::format("{}{}{}", kBegin, index, kEnd);
  if (!message.tokens.empty()) return placeholder;
  const std::string_view content = message.content, core = trimmed(content);
  if (core.empty()) return message.content;
  const auto before = static_cast<std::size_t>(core.data() - content.data());
  return fmt::format("{}{}{}", content.substr(0, before), placeholder, content.substr(before + core.size()));
}

Result<std::vector<ChatMessage>> with_placeholders(std::span<const ChatMessage> messages) {
  std::vector<ChatMessage> result;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (const auto offset = find_invalid_utf8(message.content)) {
      return fail(ErrorKind::bad_input, fmt::format("message {} is not valid UTF-8: byte 0x{:02X} at offset {}", i,
                                                    static_cast<unsigned char>(message.content[*offset]), *offset));
    }
    if ((message.role + message.content).find('\0') != std::string::npos) {
      return fail(ErrorKind::bad_input, fmt::format("message {} contains a NUL byte", i));
    }
    if (message.role.find(kBegin) != std::string::npos) {
      return fail(ErrorKind::bad_input, fmt::format("the role of message {} contains a control character", i));
    }
    result.push_back({message.role, with_placeholder(message, i)});
  }
  return result;
}

// Puts tokens together as if the whole text had been tokenized at once, cut at the control tokens of the markup only.
class ChatEncoder {
 public:
  ChatEncoder(const Tokenizer& tokenizer, const llama_vocab* vocab) : tokenizer_(tokenizer), vocab_(vocab) {}

  // Text of the template: its control tokens, in their order, are those that libllama finds in it.
  Status add_markup(std::string_view text) {
    const auto read = tokenizer_.encode(text, false, true);
    if (!read) return tl::unexpected(read.error());
    for (const Token token : *read) {
      if (!llama_vocab_is_control(vocab_, token)) continue;
      const std::string_view written = llama_vocab_get_text(vocab_, token);
      const std::size_t at = text.find(written);
      if (at == std::string_view::npos) continue;
      add_text(text.substr(0, at));
      if (Status status = add_tokens({&token, 1}); !status) return status;
      text.remove_prefix(at + written.size());
      after_text_ = false;
      strips_ = (llama_vocab_get_attr(vocab_, token) & LLAMA_TOKEN_ATTR_RSTRIP) != 0;
    }
    add_text(text);
    return {};
  }

  void add_text(std::string_view text) { text_ += text; }

  // Tokens that stand for text: what follows goes on from it.
  Status add_tokens(std::span<const Token> tokens) {
    if (Status status = encode_text(); !status) return status;
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    after_text_ = true;
    strips_ = false;
    return {};
  }

  Result<std::vector<Token>> finish() {
    if (Status status = encode_text(); !status) return tl::unexpected(status.error());
    return std::move(tokens_);
  }

 private:
  Status encode_text() {
    const std::string_view text = std::string_view(text_).substr(strips_ ? leading_white_space(text_) : 0);
    if (!text.empty()) {
      const auto tokens = after_text_ ? continuation(text) : tokenizer_.encode(text, false, false);
      if (!tokens) return tl::unexpected(tokens.error());
      tokens_.insert(tokens_.end(), tokens->begin(), tokens->end());
    }
    text_.clear();
    return {};
  }

  // SentencePiece puts a blank in front of a text. Here it goes on from other text, so a byte that joins no token keeps
  // the blank away from it, and both are left out.
  Result<std::vector<Token>> continuation(std::string_view text) const {
    constexpr char kApart = '\x01';
    auto tokens = tokenizer_.encode(kApart + std::string(text), false, false);
    const auto is_apart = [&](Token token) { return tokenizer_.piece(token) == std::string_view(&kApart, 1); };
    if (tokens) {
      const auto apart = std::find_if(tokens->begin(), tokens->end(), is_apart);
      if (apart != tokens->end()) return std::vector<Token>(apart + 1, tokens->end());
    }
    return tokenizer_.encode(text, false, false);  // a vocabulary without bytes
  }

  const Tokenizer& tokenizer_;
  const llama_vocab* vocab_;
  std::vector<Token> tokens_;
  std::string text_;         // after the tokens, not yet encoded
  bool after_text_ = false;  // the last token stands for text, or for a part of it
  bool strips_ = false;      // the last token swallows the white space behind it
};

}  // namespace

Result<std::vector<Token>> Tokenizer::encode_chat(std::span<const ChatMessage> messages,
                                                  bool open_assistant_turn) const {
  const auto placeholders = with_placeholders(messages);
  if (!placeholders) return tl::unexpected(placeholders.error());
  const auto rendering = apply_chat_template(*placeholders, open_assistant_turn);
  if (!rendering) return tl::unexpected(rendering.error());

  ChatEncoder encoder(*this, llama_model_get_vocab(vocabulary_.get()));
  std::string_view rest = *rendering;
  for (std::size_t begin; (begin = rest.find(kBegin)) != std::string_view::npos;) {
    std::size_t index = 0;
    const char* const number = rest.data() + begin + 1;
    const char* const end = std::from_chars(number, rest.data() + rest.size(), index).ptr;
    if (Status status = encoder.add_markup(rest.substr(0, begin)); !status) return tl::unexpected(status.error());
    const ChatMessage& message = messages[index];
    if (message.tokens.empty()) {
      encoder.add_text(trimmed(message.content));
    } else if (Status status = encoder.add_tokens(message.tokens); !status) {
      return tl::unexpected(status.error());
    }
    rest.remove_prefix(static_cast<std::size_t>(end + 1 - rest.data()));
  }
  if (Status status = encoder.add_markup(rest); !status) return tl::unexpected(status.error());
  auto tokens = encoder.finish();
  const auto beginning = encode("", true, false);
  if (tokens && beginning) tokens->insert(tokens->begin(), beginning->begin(), beginning->end());
  return tokens;
}

Result<std::size_t> Tokenizer::system_prompt_length(const std::string& system) const {
  const auto begin_with = [&](const char* first_message) {
    return encode_chat(std::vector<ChatMessage>{{"system", system}, {"user", first_message}}, true);
  };
  // A template may hold the system prompt back until the first message: what does not depend on that is the prompt's.
  const auto one = begin_with("A"), other = begin_with("7");
  if (!one || !other) return tl::unexpected((one ? other : one).error());
  const auto end = std::mismatch(one->begin(), one->end(), other->begin(), other->end()).first;
  std::string text;
  for (auto token = one->begin(); token != end; ++token) text += piece(*token, true);
  if (trimmed(system).empty() || text.find(trimmed(system)) == std::string::npos) {
    return fail(ErrorKind::unsupported, "the chat template of the model file does not begin with the system prompt");
  }
  return static_cast<std::size_t>(end - one->begin());
}

}  // namespace a2sf
