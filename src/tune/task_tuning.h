// Memories by task: what makes a policy answer solved items best (few-shot tuning).
#pragma once

#include <a2sf/profile.h>

#include "eval/choice_scores.h"
#include "tune/damage.h"
#include "tune/memory_search.h"

namespace a2sf {

enum class TaskCost {
  log_loss,  // of the right choice, nats per token
  errors     // the share of items that are answered wrongly; of equally many the log-loss decides
};

struct TaskTuning {
  std::vector<ChoiceItem> items;  // of all tasks together, each counts the same
  std::vector<PolicySpec> specs;  // the policy at each budget that it should serve, each counts the same
  // Its shares hold for every budget, and the result has its tables; nullptr: all heads are equal.
  std::shared_ptr<const Profile> shares;
  EvalRules rules = EvalRules::lm_eval;
  MemorySearch search;
  TaskCost cost = TaskCost::log_loss;
};

// The tables of a profile, every one with the memories that were found. `progress` counts items.
Result<std::vector<ShareTable>> tune_memories(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                                              const TaskTuning& tuning, const TuneProgress& progress = {});

}  // namespace a2sf
