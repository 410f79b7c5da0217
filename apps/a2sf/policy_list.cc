#include "policy_list.h"

#include "help.h"
#include "idle_options.h"
#include "messages.h"
#include "outcome.h"
#include "tables.h"

#include <fmt/format.h>

namespace a2sf::app {

void add_policy_list_flags(CLI::App* command, PolicyListFlags* flags, const char* standard_budgets) {
  const Heading heading(command, kCacheHeading);
  command
      ->add_option("--policies", flags->policies,
                   "Policies, separated by commas, with options if wanted: a2sf:alpha=0.9 (see: a2sf policies)")
      ->type_name("P,...")
      ->capture_default_str();
  command
      ->add_option("--budget", flags->budgets,
                   "Tokens kept per layer and KV head, separated by commas: counts, ratios of the text (0.2 or 20%), "
                   "all, or @FILE, a JSON table by layer and KV head: {\"budgets\": [[64, 32], [16, \"all\"]]}")
      ->type_name("B,...")
      ->default_str(standard_budgets)
      ->check([](const std::string& text) { return text.empty() ? "the value is empty" : ""; });
}

std::vector<PolicySpec> read_policy_list(const PolicyListFlags& flags, const CacheFlags& given_cache,
                                         const char* standard_budgets) {
  std::vector<PolicySpec> specs;
  std::vector<TypedPolicy> typed;
  for (const std::string& policy : split_list(flags.policies)) {
    for (const std::string& budget : split_list(flags.budgets.empty() ? standard_budgets : flags.budgets)) {
      CacheFlags cache = given_cache;
      cache.budget = budget;
      if (budget.empty()) fail_with(kWrongUsage, "--budget: an item of the list is empty");
      specs.push_back(read_policy(policy, cache));
      typed.push_back({policy, specs.back()});
      if (specs.back().keeps_all() || policy.find(":budget=") != std::string::npos) break;
    }
  }
  CacheFlags given = given_cache;
  given.budget = flags.budgets;
  warn_of_idle_options(given, typed);
  return specs;
}

std::string budget_cell(const PolicySpec& spec) {
  if (spec.keeps_all()) return "-";
  if (spec.budget_table() != nullptr) return "table";
  const Json budget = budget_json(spec);
  if (budget.is_string()) return budget;
  if (budget.is_number_float()) return fmt::format("{:g} %", 100 * budget.get<double>());
  return with_commas(budget.get<std::uint64_t>());
}

std::string policy_cell(const PolicySpec& spec) {
  std::string cell = harmless(to_string(spec));
  if (spec.budget_table() != nullptr) return cell;  // its file tells it from another table
  const std::size_t begin = cell.find(":budget=");
  if (begin != std::string::npos) cell.erase(begin, cell.find(':', begin + 1) - begin);
  return cell;
}

}  // namespace a2sf::app
