// An answer as a person sees it: its text as it comes, and a line of figures behind it.
#pragma once

#include "engine/generate.h"
#include "options.h"

#include <a2sf/a2sf.h>

#include <string>
#include <string_view>

namespace a2sf::app {

// Prints text for people, made harmless for a terminal. False: interrupted.
bool show(std::string_view text);

// "12 tokens, 95 tok/s; 128 of 1,034 tokens kept per head; KV cache 6.2 MiB", and the seed if one was used.
std::string figures(const Model& model, const Session& session, const Generation& generation,
                    const SamplerOptions& options);

const char* name_of(StopReason reason);

// -n: a count from `least` on, or -1 for all that the model's context has room for.
void add_tokens_flag(CLI::App* command, std::int64_t* tokens, std::int64_t least, const char* help);
// The count that is meant after `used` tokens of context. Ends the command where the file names no context.
std::size_t tokens_to_generate(std::int64_t wanted, const ModelInfo& info, std::size_t used);

}  // namespace a2sf::app
