#include "idle_options.h"

#include "auto_profile.h"
#include "messages.h"
#include "policy/sharing.h"
#include "tables.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <string_view>
#include <variant>
#include <vector>

namespace a2sf::app {
namespace {

// "alpha=0.5" and so on, of "a2sf:alpha=0.5:sink=4".
std::vector<std::string> options_in(const std::string& policy) {
  std::vector<std::string> options;
  for (std::size_t colon = policy.find(':'); colon != std::string::npos;) {
    const std::size_t next = policy.find(':', colon + 1);
    options.push_back(policy.substr(colon + 1, next - colon - 1));
    colon = next;
  }
  return options;
}

bool says(const std::string& policy, const std::string& option) {
  const auto options = options_in(policy);
  return std::any_of(options.begin(), options.end(),
                     [&](const std::string& text) { return text.starts_with(option + "="); });
}

bool uses(const PolicySpec& spec, const std::string& option) {
  if (spec.keeps_all()) return false;
  if (spec.is_oracle()) return option == "budget" || option == "profile" || option == "layers";
  const bool is_of_hook = std::holds_alternative<Hooked>(spec.score);
  if (option == "threshold" && is_of_hook) return true;  // its own
  if ((option == "value-weight" || option == "classes") && is_of_hook) return false;
  if (option == "cold") return std::holds_alternative<Accumulate>(spec.score) && scores_decide(spec);
  if (option == "recall") return spec.has_cold_tier() && scores_decide(spec);
  constexpr std::string_view kOfScore[] = {"alpha", "memory", "power", "value-weight", "threshold", "classes"};
  const bool is_of_score = std::find(std::begin(kOfScore), std::end(kOfScore), option) != std::end(kOfScore);
  return !is_of_score || scores_decide(spec);
}

std::string names_of(std::span<const TypedPolicy> policies) {
  std::vector<std::string> names;
  for (const TypedPolicy& policy : policies) {
    if (std::find(names.begin(), names.end(), policy.text) == names.end()) names.push_back(policy.text);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::int64_t smallest_budget(const PolicySpec& spec, const ModelInfo& info, std::size_t tokens) {
  std::int64_t smallest = static_cast<std::int64_t>(tokens);
  for (int layer = 0; layer < info.layers; ++layer) {
    for (int head = 0; head < info.kv_heads; ++head) {
      const auto rule = resolve(spec, layer, info.layers, head, static_cast<std::int64_t>(tokens), 0);
      if (!rule) return 0;  // a session will say why
      smallest = layer + head == 0 ? rule->budget : std::min(smallest, rule->budget);
    }
  }
  return smallest;
}

}  // namespace

void warn_of_idle_options(const CacheFlags& flags, std::span<const TypedPolicy> policies) {
  const auto warn_unless_used = [&](const PolicyOption& given, const auto& is_used_by) {
    if (std::none_of(policies.begin(), policies.end(), is_used_by))
      warn(fmt::format("--{} {} does nothing under {}", given.name, given.value, names_of(policies)));
  };
  for (const auto& given : given_options(flags)) {
    warn_unless_used(given, [&](const TypedPolicy& policy) {
      return uses(policy.spec, given.name) && !says(policy.text, given.name);
    });
  }
  if (names_domain(flags.profile)) {
    warn_unless_used({"profile", flags.profile}, [](const TypedPolicy& policy) { return can_share(policy.spec, 0); });
  }
  for (auto policy = policies.begin(); policy != policies.end(); ++policy) {
    const auto is_same = [&](const TypedPolicy& other) { return other.text == policy->text; };  // at another budget
    if (std::any_of(policies.begin(), policy, is_same)) continue;
    for (const std::string& option : options_in(policy->text)) {
      const std::string name = option.substr(0, option.find('='));
      const bool used = std::any_of(policy, policies.end(),
                                    [&](const TypedPolicy& other) { return is_same(other) && uses(other.spec, name); });
      if (!used) warn(fmt::format("{} does nothing in {}", option, policy->text));
    }
  }
}

void warn_of_budgets_that_hold_all(std::span<const PolicySpec> specs, const ModelInfo& info, std::size_t tokens,
                                   const char* what) {
  std::map<std::int64_t, std::vector<std::string>> names;  // by budget
  for (const PolicySpec& spec : specs) {
    if (spec.keeps_all()) continue;
    const std::int64_t budget = smallest_budget(spec, info, tokens);
    if (budget == kKeepAll) continue;  // as was asked for
    auto& same = names[budget];
    if (budget >= static_cast<std::int64_t>(tokens) && std::find(same.begin(), same.end(), spec.name) == same.end())
      same.push_back(spec.name);
  }
  for (const auto& [budget, idle] : names) {
    if (idle.empty()) continue;
    warn(fmt::format("{} {} nothing: a budget of {} holds all {} of {}", fmt::join(idle, ", "),
                     idle.size() == 1 ? "evicts" : "evict", budget, counted(tokens, "token"), what));
  }
}

}  // namespace a2sf::app
