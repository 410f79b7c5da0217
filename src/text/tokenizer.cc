#include <a2sf/text.h>
#include <fmt/format.h>
#include <llama.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <new>
#include <optional>
#include <utility>

#include "core/libllama.h"
#include "text/deep_stack.h"
#include "text/utf8.h"
#include "text/vocabulary_file.h"

namespace a2sf {
namespace {

constexpr std::size_t kLongestText = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kAnyStackText = 1024;           // bytes that tokenize on any thread's stack
constexpr std::size_t kLongestRegexText = 4U << 20U;  // bytes; the stack of one endless word is then over 1 GB
constexpr std::size_t kBaseStack = 1U << 20U;
constexpr std::size_t kStackPerByte = 1024;

const llama_vocab* vocab_of(const std::shared_ptr<const llama_model>& model) {
  return llama_model_get_vocab(model.get());
}

std::optional<Token> token_or_none(llama_token token) {
  return token == LLAMA_TOKEN_NULL ? std::nullopt : std::optional<Token>(token);
}

// Exceptions of libllama end here. `what` begins the message.
template <class Function>
auto catch_exceptions(const std::string& what, Function&& function) -> decltype(function()) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::out_of_memory, what + ": out of memory");
  } catch (const std::exception& exception) {
    return fail(ErrorKind::bad_input, what + ": " + exception.what());
  }
}

Result<std::shared_ptr<const llama_model>> load_vocabulary(const std::string& path) {
  auto gguf = text::open_vocabulary_file(path);
  if (!gguf) return tl::unexpected(gguf.error());
  // A vocabulary does not depend on the architecture, but libllama refuses those it does not know.
  gguf_set_val_str(gguf->get(), "general.architecture", "llama");

  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  const ErrorCapture capture;
  llama_model* model = llama_model_init_from_user(gguf->get(), nullptr, nullptr, params);
  if (model == nullptr) {
    return fail(ErrorKind::bad_input, fmt::format("{}: libllama cannot read the vocabulary: {}", path,
                                                  capture.reason("it does not say why")));
  }
  return std::shared_ptr<const llama_model>(
      model, [](const llama_model* m) { llama_model_free(const_cast<llama_model*>(m)); });
}

Result<std::vector<Token>> tokenize(const llama_vocab* vocab, std::string_view text, bool parse_special) {
  // Two to three bytes a token are usual; a second pass with the exact number follows where that was too little.
  std::vector<Token> tokens(text.size() / 2 + 16);
  for (;;) {
    const auto room = static_cast<std::int32_t>(std::min(tokens.size(), kLongestText));
    // libllama would also add the end-of-sequence token, so it is asked for neither and the first one is added by
    // encode.
    const std::int32_t count = llama_tokenize(vocab, text.data(), static_cast<std::int32_t>(text.size()), tokens.data(),
                                              room, /*add_special=*/false, parse_special);
    if (count == std::numeric_limits<std::int32_t>::min()) {
      return fail(ErrorKind::bad_input, "the text has more than 2147483647 tokens");
    }
    tokens.resize(static_cast<std::size_t>(count < 0 ? -count : count));
    if (count >= 0) return tokens;
  }
}

// libllama splits some vocabularies' texts with std::regex, which recurses once per character of a word or a run of
// spaces (about 320 bytes of stack each time). These pre-tokenizers are the common ones that it splits without.
bool splits_with_std_regex(const llama_model* model) {
  if (llama_vocab_type(llama_model_get_vocab(model)) != LLAMA_VOCAB_TYPE_BPE) return false;
  char name[32] = "";
  llama_model_meta_val_str(model, "tokenizer.ggml.pre", name, sizeof name);
  constexpr std::string_view kWithout[] = {"gpt-2", "smollm",    "qwen2",  "llama-bpe", "olmo",
                                           "mpt",   "starcoder", "refact", "phi-2",     "stablelm2"};
  return std::ranges::find(kWithout, std::string_view(name)) == std::end(kWithout);
}

// Without this, a long word in the text would overflow the caller's stack.
Result<std::vector<Token>> tokenize_safely(const llama_model* model, std::string_view text, bool parse_special) {
  const auto call = [&]() -> Result<std::vector<Token>> {
    return catch_exceptions("the text cannot be tokenized",
                            [&] { return tokenize(llama_model_get_vocab(model), text, parse_special); });
  };
  if (text.size() <= kAnyStackText || !splits_with_std_regex(model)) return call();
  if (text.size() > kLongestRegexText) {
    return fail(ErrorKind::bad_input,
                fmt::format("the text has {} bytes; with this vocabulary at most {} can be tokenized at once",
                            text.size(), kLongestRegexText));
  }
  Result<std::vector<Token>> result;
  const std::size_t stack = kBaseStack + text.size() * kStackPerByte;
  if (!text::run_on_stack(stack, [&] { result = call(); })) {
    return fail(ErrorKind::out_of_memory,
                fmt::format("no address space for a stack of {} bytes to tokenize the text", stack));
  }
  return result;
}

std::optional<Token> find_token(const llama_vocab* vocab, std::string_view text) {
  for (Token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
    if (llama_vocab_get_text(vocab, token) == text) return token;
  }
  return std::nullopt;
}

// The characters of a text one by one; bytes for those that are no token.
Result<std::vector<Token>> spell(const llama_vocab* vocab, std::string_view text) {
  std::vector<Token> tokens;
  const auto add = [&](const std::optional<Token>& token) {
    if (token) tokens.push_back(*token);
    return token.has_value();
  };
  while (!text.empty()) {
    const std::string_view character = text.substr(0, std::max<std::size_t>(1, text::character_length(text)));
    if (!add(find_token(vocab, character))) {
      for (const char byte : character) {
        if (!add(find_token(vocab, fmt::format("<0x{:02X}>", static_cast<unsigned char>(byte))))) {
          return fail(ErrorKind::bad_input, fmt::format("the vocabulary has no token for \"{}\"", character));
        }
      }
    }
    text.remove_prefix(character.size());
  }
  return tokens;
}

// libllama joins pieces to whatever token has their text: "</" and "s>" to the end of the sequence.
Result<std::vector<Token>> without_controls(const llama_vocab* vocab, std::vector<Token> tokens) {
  const auto is_control = [&](Token token) { return llama_vocab_is_control(vocab, token); };
  for (auto at = std::find_if(tokens.begin(), tokens.end(), is_control); at != tokens.end();
       at = std::find_if(at, tokens.end(), is_control)) {
    const auto letters = spell(vocab, llama_vocab_get_text(vocab, *at));
    if (!letters) return tl::unexpected(letters.error());
    at = tokens.insert(tokens.erase(at), letters->begin(), letters->end());
  }
  return tokens;
}

Result<std::vector<llama_chat_message>> to_llama(std::span<const ChatMessage> messages) {
  std::vector<llama_chat_message> result;
  std::size_t total = 0;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    // libllama takes C strings: it would drop the rest of the message in silence.
    if ((message.role + message.content).find('\0') != std::string::npos) {
      return fail(ErrorKind::bad_input, fmt::format("message {} contains a NUL byte", i));
    }
    result.push_back({message.role.c_str(), message.content.c_str()});
    total += message.role.size() + message.content.size();
  }
  // The templates add their marks to each message; a quarter of the range is room enough for them.
  if (total > kLongestText / 4 * 3) {
    return fail(ErrorKind::bad_input,
                fmt::format("the messages have {} bytes; at most {} can be used", total, kLongestText / 4 * 3));
  }
  return result;
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const llama_model> vocabulary) : vocabulary_(std::move(vocabulary)) {
  const char* chat_template = llama_model_chat_template(vocabulary_.get(), nullptr);
  if (chat_template != nullptr) chat_template_ = chat_template;
}

Result<Tokenizer> Tokenizer::load(const std::string& path) {
  return catch_exceptions(path, [&]() -> Result<Tokenizer> {
    initialise_libllama();
    auto vocabulary = load_vocabulary(path);
    if (!vocabulary) return tl::unexpected(vocabulary.error());
    return Tokenizer(std::move(*vocabulary));
  });
}

Result<std::vector<Token>> Tokenizer::encode(std::string_view text, bool add_bos, bool parse_special) const {
  if (text.size() > kLongestText) {
    return fail(ErrorKind::bad_input,
                fmt::format("the text has {} bytes; at most {} can be tokenized", text.size(), kLongestText));
  }
  if (const auto offset = find_invalid_utf8(text)) {
    return fail(ErrorKind::bad_input, fmt::format("the text is not valid UTF-8: byte 0x{:02X} at offset {}",
                                                  static_cast<unsigned char>(text[*offset]), *offset));
  }
  auto tokens = tokenize_safely(vocabulary_.get(), text, parse_special);
  if (tokens && !parse_special) tokens = without_controls(vocab_of(vocabulary_), std::move(*tokens));
  if (tokens && add_bos && adds_bos()) tokens->insert(tokens->begin(), *bos());
  return tokens;
}

std::string Tokenizer::piece(Token token, bool special) const {
  if (token < 0 || token >= vocabulary_size()) return {};  // libllama would throw
  std::string piece(32, '\0');
  for (;;) {
    const std::int32_t length = llama_token_to_piece(vocab_of(vocabulary_), token, piece.data(),
                                                     static_cast<std::int32_t>(piece.size()), /*lstrip=*/0, special);
    piece.resize(static_cast<std::size_t>(length < 0 ? -length : length));
    if (length >= 0) return piece;
  }
}

Result<std::string> Tokenizer::apply_chat_template(std::span<const ChatMessage> messages,
                                                   bool open_assistant_turn) const {
  // libllama would take ChatML for a missing template.
  if (!has_chat_template()) return fail(ErrorKind::bad_input, "the model file has no chat template");
  const auto chat = to_llama(messages);
  if (!chat) return tl::unexpected(chat.error());
  return catch_exceptions("the chat template cannot be applied", [&]() -> Result<std::string> {
    std::string prompt;
    for (;;) {
      const std::int32_t length =
          llama_chat_apply_template(chat_template_.c_str(), chat->data(), chat->size(), open_assistant_turn,
                                    prompt.data(), static_cast<std::int32_t>(prompt.size()));
      if (length < 0) {
        return fail(ErrorKind::unsupported, "the chat template of the model file is none of those that libllama knows");
      }
      const bool fits = static_cast<std::size_t>(length) <= prompt.size();
      prompt.resize(static_cast<std::size_t>(length));
      if (fits) return prompt;
    }
  });
}

bool Tokenizer::has_chat_template() const { return !chat_template_.empty(); }

bool Tokenizer::adds_bos() const { return llama_vocab_get_add_bos(vocab_of(vocabulary_)) && bos(); }

std::optional<Token> Tokenizer::bos() const { return token_or_none(llama_vocab_bos(vocab_of(vocabulary_))); }

std::optional<Token> Tokenizer::eos() const { return token_or_none(llama_vocab_eos(vocab_of(vocabulary_))); }

bool Tokenizer::is_end_of_generation(Token token) const { return llama_vocab_is_eog(vocab_of(vocabulary_), token); }

int Tokenizer::vocabulary_size() const { return llama_vocab_n_tokens(vocab_of(vocabulary_)); }

}  // namespace a2sf
