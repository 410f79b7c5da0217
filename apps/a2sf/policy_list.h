// --policies P,... and --budget B,...: every policy at every budget.
#pragma once

#include "options.h"

#include <string>
#include <vector>

namespace a2sf::app {

struct PolicyListFlags {
  std::string policies = "full,local,h2o,a2sf", budgets;
};
// `standard_budgets`: where none are given.
void add_policy_list_flags(CLI::App* command, PolicyListFlags* flags, const char* standard_budgets);

// Every policy at every budget; one that names its own budget, and full, once. Warns of what does nothing.
std::vector<PolicySpec> read_policy_list(const PolicyListFlags& flags, const CacheFlags& cache,
                                         const char* standard_budgets);

// The budget of a spec as a table of policies shows it: "-", "256", "20 %", "table".
std::string budget_cell(const PolicySpec& spec);
// The spec without its budget: the policy's name, and every option that is not its default.
std::string policy_cell(const PolicySpec& spec);

}  // namespace a2sf::app
