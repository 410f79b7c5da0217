// Log-probabilities as the two endpoints of the API write them.
#pragma once

#include <span>
#include <string>

#include "serve/fields.h"
#include "serve/job.h"

namespace a2sf::serve {

Json bytes_of(const std::string& piece);  // of a token's text
// {tokens, token_logprobs, top_logprobs, text_offset}; `offset`: characters of the text before these tokens, moved on.
Json completion_logprobs(const Tokenizer& tokenizer, std::span<const ScoredToken> tokens, std::size_t& offset);
// {content: [{token, logprob, bytes, top_logprobs}]}
Json chat_logprobs(const Tokenizer& tokenizer, std::span<const ScoredToken> tokens);

}  // namespace a2sf::serve
