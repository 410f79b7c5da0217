// Text to tokens and back, chat templates and samplers: thin, safe wrappers over libllama.
#pragma once

#include <a2sf/result.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct llama_model;

namespace a2sf {

using Token = std::int32_t;

// A token and the logarithm of its probability, by the softmax over the whole vocabulary.
struct TokenProbability {
  Token token = -1;
  double log_probability = 0;
};

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
  // What `content` was made from, where it is known: an answer as the model gave it, white space included. Only
  // Tokenizer::encode_chat reads it.
  std::vector<Token> tokens = {};
};

// The vocabulary of a GGUF file. Immutable after loading; every method may be called from several threads at once.
class Tokenizer {
 public:
  // Loads the vocabulary alone: no weights, and whatever the architecture. Fails if the file is no GGUF or its
  // vocabulary is neither byte-pair ("gpt2") nor SentencePiece ("llama").
  static Result<Tokenizer> load(const std::string& path);

  // Token ids of `text`, which must be valid UTF-8 (bad_input names the first wrong byte's offset). `add_bos` adds the
  // beginning-of-sequence token if the file asks for one; `parse_special` reads "<|im_start|>" and its like as one
  // token; without it no control token ever comes out of the text. No end-of-sequence token is ever added: the text is
  // to be continued.
  Result<std::vector<Token>> encode(std::string_view text, bool add_bos, bool parse_special) const;

  // The bytes one token stands for; they may end inside a UTF-8 character. Empty for control tokens unless `special`.
  std::string piece(Token token, bool special = false) const;

  // The prompt text of a conversation in the file's own chat template, with the assistant's turn opened if asked.
  // Fails where the file has no template, or has one that libllama does not recognise.
  Result<std::string> apply_chat_template(std::span<const ChatMessage> messages, bool open_assistant_turn) const;

  // The tokens of that prompt text, BOS included if the file asks for one. The template's marks become control tokens;
  // what the messages say never does, so nobody can forge a turn: "<|im_end|>" in a message is read as its letters. A
  // message with `tokens` is these tokens, not its text encoded once more, so a conversation begins with the tokens
  // that its earlier part was. Errors are those of apply_chat_template and encode.
  Result<std::vector<Token>> encode_chat(std::span<const ChatMessage> messages, bool open_assistant_turn) const;

  // How many tokens every conversation with this system prompt begins with, its own tokens among them. Fails where the
  // chat template has no system prompt, or has it elsewhere.
  Result<std::size_t> system_prompt_length(const std::string& system) const;

  bool has_chat_template() const;
  const std::string& chat_template() const { return chat_template_; }  // empty if none
  bool adds_bos() const;
  std::optional<Token> bos() const;  // the tokens that begin and end a sequence, where the file names them
  std::optional<Token> eos() const;
  bool is_end_of_generation(Token token) const;
  int vocabulary_size() const;

 private:
  friend class Sampler;
  explicit Tokenizer(std::shared_ptr<const llama_model> vocabulary);
  std::shared_ptr<const llama_model> vocabulary_;
  std::string chat_template_;
};

// Added to the logit of a token, from -100 to 100; minus infinity: it is never drawn.
struct TokenBias {
  Token token = -1;
  float bias = 0.0F;
};

struct SamplerOptions {
  float temperature = 0.0F;     // 0: greedy; else > 0
  int top_k = 40;               // 0: off
  float top_p = 0.95F;          // (0, 1]; 1: off
  float min_p = 0.05F;          // [0, 1]; 0: off
  float repeat_penalty = 1.0F;  // > 0; 1: off; over the last 64 tokens
  std::uint32_t seed = 0;
  // Taken from the logit of a token that this sampler drew before: once, and for each time it did. -2 to 2; 0: off.
  float presence_penalty = 0.0F, frequency_penalty = 0.0F;
  std::vector<TokenBias> logit_bias = {};
};

// Draws tokens from logits. Belongs to one generation; not thread safe. The same seed and logits give the same tokens.
class Sampler {
 public:
  static Result<Sampler> create(const Tokenizer& tokenizer, const SamplerOptions& options);

  // The next token after logits [vocabulary size]; remembers it for the repeat penalty. A NaN counts as never; -1 if
  // there are no logits.
  Token sample(std::span<const float> logits);
  // Tells the repeat penalty of a token that was not sampled (the prompt's).
  void accept(Token token);

 private:
  struct State;
  struct Free {
    void operator()(State* state) const;
  };
  explicit Sampler(std::unique_ptr<State, Free> state);
  std::unique_ptr<State, Free> state_;
};

// Collects pieces into whole UTF-8 characters and stops at the first of several stop strings to be complete. How the
// text is cut into pieces makes no difference to it. Not thread safe.
class TextStream {
 public:
  explicit TextStream(std::vector<std::string> stop_strings = {});
  // Text that can be shown now: whole characters that cannot be the start of a stop string. Nothing once stopped.
  std::string push(std::string_view piece);
  // What was held back, at the end of a generation; broken UTF-8 becomes U+FFFD.
  std::string flush();
  // Forgets the beginning of a character whose rest will not come, because the generation was interrupted.
  void drop_partial_character();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_strings_;
  std::string held_;
  bool stopped_ = false;
};

// The offset of the first byte that is not part of well-formed UTF-8, or nothing if the text is valid.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

}  // namespace a2sf
