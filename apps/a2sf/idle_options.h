// Warnings of what does nothing: options that a policy has no use for or says otherwise itself, and budgets that hold
// everything.
#pragma once

#include "options.h"

#include <span>
#include <string>

namespace a2sf::app {

// A policy as it was typed, and as it was read with the flags as its defaults.
struct TypedPolicy {
  std::string text;
  PolicySpec spec;
};

// Flags that none of the policies makes use of, and options in a policy's own text that it makes no use of.
void warn_of_idle_options(const CacheFlags& flags, std::span<const TypedPolicy> policies);

// Policies whose smallest head holds all `tokens` of `what` ("the text").
void warn_of_budgets_that_hold_all(std::span<const PolicySpec> specs, const ModelInfo& info, std::size_t tokens,
                                   const char* what);

}  // namespace a2sf::app
