// --profile auto, --profile DOMAIN: the profile that was measured on the very model at hand.
#pragma once

#include "options.h"

#include <memory>
#include <span>
#include <string>

namespace a2sf::app {

// Whether --profile says a domain that profiles come with the library for.
bool names_domain(const std::string& profile);
// Where `tune` leaves a model's profile, and `auto` finds it.
std::string profile_beside(const std::string& model_file);

// What auto stands for: the profile beside the model's file, or else the shipped one of this model; nullptr: there is
// none.
std::shared_ptr<const Profile> auto_profile(const ModelInfo& model);

struct Sequence {
  std::string text_hash = {};  // of the text that is read; empty: not known
  std::int64_t tokens = 0;     // of the whole sequence; 0: not known
};

// Where the flags say auto: the profile beside the model's file, or else the shipped one of this model, shares out the
// budgets of the policies that choose by score and whose budget is a count or a ratio. Nothing happens where there is
// no profile, where the text is one that it was tuned on, and where the budget holds the whole sequence. Where they
// name a domain, its shipped profile of this model does, and the command ends where there is none. Says in a line on a
// terminal which one is used, unless `quiet`.
void use_auto_profile(const CacheFlags& flags, const ModelInfo& model, const Sequence& sequence,
                      std::span<PolicySpec> specs, bool quiet);

// Whether the policy has something that may have been tuned on a text: a profile, token classes or a hook.
bool is_tuned(const PolicySpec& spec);
// Ends the command where any of that was tuned on the text that is to be scored.
void refuse_tuned_text(std::span<const PolicySpec> specs, const std::string& text_hash, const std::string& text);

}  // namespace a2sf::app
