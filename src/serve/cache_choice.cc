#include "serve/cache_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "policy/sharing.h"

namespace a2sf::serve {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();

bool names_no_file(std::string_view option) {
  constexpr std::string_view kPlain[] = {"alpha",    "memory", "power",  "value-weight", "threshold", "budget",
                                         "layers",   "sink",   "recent", "block",        "pin",       "cold",
                                         "recall",   "window", "kernel", "lambda",       "attention", "frequency",
                                         "textrank", "value",  "age"};
  const std::string_view name = option.substr(0, option.find('='));
  return std::find(std::begin(kPlain), std::end(kPlain), name) != std::end(kPlain) &&
         option.find('@') == std::string_view::npos;
}

// "a2sf:alpha=0.9", with options that need no file.
bool is_harmless(std::string_view policy) {
  std::size_t colon = policy.find(':');
  while (colon != std::string_view::npos) {
    const std::size_t next = policy.find(':', colon + 1);
    if (!names_no_file(policy.substr(colon + 1, next - colon - 1))) return false;
    colon = next;
  }
  return true;
}

// A number in a range, or the word that may stand for it; as set_option() reads it.
void take_option(Fields& fields, CacheChoice& choice, const char* name, double least, const char* word) {
  const Json* value = fields.find(name);
  if (value == nullptr) return;
  const double number = value->is_number() ? value->get<double>() : NAN;
  if (number >= least && number <= static_cast<double>(kMost)) {
    choice.options.push_back({name, value->dump()});
  } else if (*value == word) {
    choice.options.push_back({name, word});
  } else {
    fields.refuse(name, fmt::format("should be a number from {} on, or \"{}\"", least, word));
  }
}

std::string with_options(std::string policy, const std::vector<PolicyOption>& options) {
  for (const auto& [name, value] : options) policy += fmt::format(":{}={}", name, value);
  return policy;
}

Parsed<std::shared_ptr<const Profile>> find_profile(const std::string& name, const CacheDefaults& defaults) {
  if (name == "none") return nullptr;
  const auto found = defaults.profiles.find(name);
  if (found != defaults.profiles.end()) return found->second;
  std::string names = "none";
  for (const auto& each : defaults.profiles) names += ", " + each.first;
  return refuse("a2sf.profile", fmt::format("a2sf.profile: there is no such profile; there are {}", names));
}

Json budget_json(const PolicySpec& spec) {
  const auto* count = std::get_if<BudgetCount>(&spec.budget.budget);
  if (const auto* shares = std::get_if<BudgetShares>(&spec.budget.budget))
    count = std::get_if<BudgetCount>(&shares->mean);
  if (spec.keeps_all() || count == nullptr) return nullptr;
  return count->tokens == kKeepAll ? Json("all") : Json(count->tokens);
}

}  // namespace

Json cache_json(const ChosenPolicy& chosen) {
  return {{"policy", chosen.text},
          {"profile", chosen.profile.empty() ? Json() : Json(chosen.profile)},
          {"budget", budget_json(chosen.spec)}};
}

CacheChoice take_cache_choice(Fields& fields) {
  CacheChoice choice;
  choice.policy = fields.text("policy");
  if (choice.policy && !is_harmless(*choice.policy)) fields.refuse("policy", "has an option that a request cannot set");
  choice.profile = fields.text("profile");
  take_option(fields, choice, "budget", 1, "all");
  take_option(fields, choice, "alpha", 0, "auto");
  take_option(fields, choice, "sink", 0, "0");
  take_option(fields, choice, "recent", 0, "0");
  take_option(fields, choice, "block", 1, "prompt");
  choice.is_viewed = fields.flag("view", false);
  const Json* pin = fields.find("pin");
  choice.pin_system = pin != nullptr && *pin == "system";
  if (!choice.pin_system) take_option(fields, choice, "pin", 0, "system");
  return choice;
}

Parsed<ChosenPolicy> choose_policy(const CacheChoice& choice, const CacheDefaults& defaults, std::int64_t pin,
                                   std::int64_t tokens) {
  const auto refuse_with = [](const Error& error) { return refuse("a2sf", "a2sf: " + error.message); };
  auto spec = parse_policy(with_options(choice.policy.value_or(defaults.policy), choice.options), defaults.options);
  if (!spec) return refuse_with(spec.error());
  if (spec->has_ratio()) return refuse("a2sf.budget", "a2sf.budget: should be a count of tokens, not a ratio");
  if (pin > 0) spec->keep.pin = pin;
  ChosenPolicy chosen{std::move(*spec), "", ""};
  chosen.text = to_string(chosen.spec);
  const std::string& name = choice.profile.value_or(defaults.profile);
  auto profile = find_profile(name, defaults);
  if (!profile) return tl::unexpected(profile.error());
  if (*profile == nullptr || !can_share(chosen.spec, tokens)) return chosen;
  if (auto shared = share_by(chosen.spec, *profile); !shared) return refuse_with(shared.error());
  chosen.profile = name;
  return chosen;
}

}  // namespace a2sf::serve
