// Continues a sequence token by token: a state machine that a scheduler drives, and a loop over it for one sequence.
#pragma once

#include <a2sf/session.h>
#include <a2sf/text.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

struct GenerateOptions {
  std::size_t tokens = 128;  // at most
  std::vector<std::string> stop;
  // Record the log-probability of every token, and so many of the likeliest ones in its place (0: none of these).
  std::optional<std::size_t> logprobs = std::nullopt;
};

enum class StopReason { length, end_of_generation, stop_string, interrupted };

// What the model said where a token was drawn, before any temperature, penalty or cut of the sampler: the
// log-probability of that token, and of the likeliest ones (it may be among them), the best first.
struct TokenChoice {
  double logprob;
  std::vector<TokenProbability> top;
};

struct Generation {
  std::vector<Token> tokens;
  std::string text;
  StopReason reason = StopReason::length;
  std::vector<TokenChoice> choices = {};  // of each token, where options.logprobs asks
  // Of generate():
  double seconds = 0;   // in Session::feed
  std::size_t fed = 0;  // tokens that entered the cache: often all but the last
};

// The state of one generation. It feeds nothing: whoever drives it runs the steps, of one sequence or of many.
//
//     while (!generator.done()) {
//       token = generator.next(logits of the sequence's last token);
//       show(generator.take_text());
//       if (!generator.done()) feed *token;
//     }
//     generator.finish();
//     show(generator.take_text());
//
// Not thread safe. The tokenizer and the sampler must outlive it.
class Generator {
 public:
  // `sampler` is this generation's own and knows the tokens before it (Sampler::accept).
  Generator(const Tokenizer& tokenizer, Sampler& sampler, GenerateOptions options);

  // Draws a token from the logits [vocabulary] of the sequence's last one and returns it, to be fed next; nothing where
  // it ends the generation, after which done() holds. Only before done().
  std::optional<Token> next(std::span<const float> logits);
  // Ends the generation after the last token, less the first bytes of an unfinished character. One that the model or a
  // stop string has ended stays as it is. Only before finish().
  void interrupt();
  // No token is to be fed any more: generation().reason says why. With options.tokens == 0 from the beginning.
  bool done() const { return done_; }

  // The text that became complete since the last call: whole characters that cannot be the start of a stop string.
  // Valid until the next call of another function.
  std::string_view take_text();
  // Once done: what was held back is text too. Repeating it changes nothing.
  void finish();
  // So far; the text is complete after finish().
  const Generation& generation() const { return generation_; }

 private:
  void end(StopReason reason);

  const Tokenizer& tokenizer_;
  Sampler& sampler_;
  GenerateOptions options_;
  TextStream stream_;
  Generation generation_;
  std::size_t taken_ = 0;  // bytes of the text
  bool done_;
};

// Starts from the logits of the session's last token. `show` gets the text as it becomes complete and returns false to
// interrupt; it is asked with an empty text as well, once a token. What was generated until then is the result, less
// the first bytes of an unfinished character.
Result<Generation> generate(Session& session, const Tokenizer& tokenizer, Sampler& sampler,
                            const GenerateOptions& options, const std::function<bool(std::string_view)>& show);

}  // namespace a2sf
