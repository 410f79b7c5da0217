// a2sf eval --masks: what policies keep, beside what rows attend to.
#pragma once

#include "eval/evaluation.h"
#include "options.h"
#include "policy_list.h"

#include <memory>
#include <vector>

namespace a2sf::app {

inline constexpr std::size_t kMaskItems = 20;  // of each task, where --limit says nothing

// The policies that have masks, and the ideal one at each budget. Ends the command at one that has none before a
// prompt's end.
std::vector<PolicySpec> read_mask_policies(const PolicyListFlags& flags, const CacheFlags& cache,
                                           const char* standard_budgets);

// Reads each item's context and right choice, and delivers `document` with what the masks come to.
void run_masks(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const EvaluationOptions& options,
               Json document, Delivery& delivery);

}  // namespace a2sf::app
