#include "auto_profile.h"

#include "messages.h"
#include "outcome.h"

#include <a2sf/token_classes.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>

namespace a2sf::app {
namespace {

using SharedProfile = std::shared_ptr<const Profile>;

SharedProfile domain_profile(const std::string& domain, const ModelInfo& model) {
  auto profile = shipped_profile(model.hash, domain);
  if (profile == nullptr) {
    fail_with(kFailed, fmt::format("--profile {}: no such profile comes with {}; a2sf tune makes one of a text", domain,
                                   harmless(model.path)));
  }
  return profile;
}

const TokenClasses* classes_of(const PolicySpec& spec) {
  const auto* accumulate = std::get_if<Accumulate>(&spec.score);
  return accumulate == nullptr ? nullptr : accumulate->classes.get();
}

}  // namespace

bool is_tuned(const PolicySpec& spec) {
  return std::holds_alternative<Hooked>(spec.score) || classes_of(spec) != nullptr || spec.profile() != nullptr;
}

bool names_domain(const std::string& profile) {
  const auto domains = shipped_domains();
  return std::find(domains.begin(), domains.end(), profile) != domains.end();
}

std::string profile_beside(const std::string& model_file) { return model_file + ".a2sf.json"; }

// One of another model is none: budgets that do not fit are worse than equal ones.
std::shared_ptr<const Profile> auto_profile(const ModelInfo& model) {
  const std::string path = profile_beside(model.path);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return shipped_profile(model.hash);
  auto profile = need(read_profile(path));
  if (profile.model_hash == model.hash) return std::make_shared<const Profile>(std::move(profile));
  warn(
      fmt::format("{} was tuned on another model and is not used; a2sf tune makes one for this model", harmless(path)));
  return shipped_profile(model.hash);
}

void use_auto_profile(const CacheFlags& flags, const ModelInfo& model, const Sequence& sequence,
                      std::span<PolicySpec> specs, bool quiet) {
  const std::string wanted = flags.profile.empty() ? flags.standard_profile : flags.profile;
  const bool is_automatic = wanted == "auto";
  if (!is_automatic && !names_domain(wanted)) return;
  if (std::none_of(specs.begin(), specs.end(),
                   [&](const PolicySpec& spec) { return can_share(spec, sequence.tokens); }))
    return;
  const SharedProfile profile = is_automatic ? auto_profile(model) : domain_profile(wanted, model);
  if (profile == nullptr || (is_automatic && profile->was_tuned_on(sequence.text_hash))) return;
  for (PolicySpec& spec : specs) {
    if (can_share(spec, sequence.tokens)) need(share_by(spec, profile));
  }
  if (!quiet && ::isatty(STDERR_FILENO) == 1)
    say(fmt::format("budgets by the profile {} (--profile none: equal ones)\n", harmless(profile->file)));
}

void refuse_tuned_text(std::span<const PolicySpec> specs, const std::string& text_hash, const std::string& text) {
  const auto refuse = [&](const std::string& tuned, const char* remedy) {
    fail_with(kFailed, fmt::format("{} was tuned on {}: what it does there says nothing about other texts; score "
                                   "another text{}",
                                   harmless(tuned), harmless(text_name(text)), remedy));
  };
  for (const PolicySpec& spec : specs) {
    if (const auto* hooked = std::get_if<Hooked>(&spec.score);
        hooked != nullptr && hooked->factory->was_tuned_on(text_hash))
      refuse(to_string(spec), "");
    if (const TokenClasses* classes = classes_of(spec); classes != nullptr && has_text(classes->texts, text_hash))
      refuse("the file of classes " + classes->file, ", or leave out classes");
    if (spec.profile() != nullptr && spec.profile()->was_tuned_on(text_hash))
      refuse("the profile " + spec.profile()->file, ", or use --profile none");
  }
}

}  // namespace a2sf::app
