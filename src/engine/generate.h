// Continues a sequence token by token.
#pragma once

#include <a2sf/session.h>
#include <a2sf/text.h>

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

struct GenerateOptions {
  std::size_t tokens = 128;  // at most
  std::vector<std::string> stop;
};

enum class StopReason { length, end_of_generation, stop_string, interrupted };

struct Generation {
  std::vector<Token> tokens;
  std::string text;
  StopReason reason = StopReason::length;
  double seconds = 0;   // in Session::feed
  std::size_t fed = 0;  // tokens that entered the cache: often all but the last
};

// Starts from the logits of the session's last token. `show` gets the text as it becomes complete and returns false to
// interrupt; it is asked with an empty text as well, once a token. What was generated until then is the result, less
// the first bytes of an unfinished character.
Result<Generation> generate(Session& session, const Tokenizer& tokenizer, Sampler& sampler,
                            const GenerateOptions& options, const std::function<bool(std::string_view)>& show);

}  // namespace a2sf
