// How the cache of a request is bounded: the server's own way, and what the object `a2sf` changes of it.
#pragma once

#include <a2sf/policy.h>
#include <a2sf/profile.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "serve/fields.h"
#include "serve/request.h"

namespace a2sf::serve {

// Names no file, whatever the request says: a policy's options are those that are numbers or words.
CacheChoice take_cache_choice(Fields& fields);

struct CacheDefaults {
  std::string policy = "a2sf";                                          // with its options
  std::vector<PolicyOption> options;                                    // of every policy, as parse_policy takes them
  std::string profile = "none";                                         // one of these names, or none
  std::map<std::string, std::shared_ptr<const Profile>> profiles = {};  // that requests may ask for; nullptr: none
};

struct ChosenPolicy {
  PolicySpec spec;
  std::string text;     // the spec as text, without the profile
  std::string profile;  // its name; empty: the heads have equal budgets
};

// `pin`: tokens of the system prompt, where they are to be pinned. `tokens`: of the whole sequence.
Parsed<ChosenPolicy> choose_policy(const CacheChoice& choice, const CacheDefaults& defaults, std::int64_t pin,
                                   std::int64_t tokens);

// As an answer tells it: {policy, profile, budget}.
Json cache_json(const ChosenPolicy& chosen);

}  // namespace a2sf::serve
