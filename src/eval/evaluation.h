// Tasks x shots x policies: what each policy answers, item by item, and how well.
#pragma once

#include <optional>

#include "eval/eval_task.h"
#include "eval/item_results.h"
#include "eval/statistics.h"

namespace a2sf {

struct EvaluatedPolicy {
  PolicySpec spec;
  nlohmann::ordered_json budget;  // this and the hash: as ItemResult has them
  std::string budget_hash;
};

struct EvaluationOptions {
  std::string data;  // the folder of the tasks' folders
  std::vector<EvalTaskInfo> tasks;
  std::vector<std::size_t> shots;
  std::vector<EvaluatedPolicy> policies;
  std::size_t limit = 0;  // the first so many items of each task; 0: all
  EvalRules rules = EvalRules::lm_eval;
  KvType kv_type = KvType::f16;
};

// A mean over the items of a task. Of choices: acc and acc_norm (0 to 1; no acc_norm where TaskInfo says so), and
// gold_logprob, of the right choice, in nats, which is finer. Of answers: score (0 to 1). Of windows: loss (nats per
// token; windows count by their scored tokens, which are equally many).
struct Measure {
  std::string name;
  Estimate value;
};

// nullptr: there is none of this name.
const Estimate* find_measure(const std::vector<Measure>& measures, std::string_view name);

// Results of one policy on one task.
struct EvaluationRow {
  std::string task;
  TaskKind kind = TaskKind::choices;
  std::size_t shots = 0;
  std::size_t policy = 0;  // among the options'
  std::size_t items = 0;
  std::vector<Measure> measures;

  const Estimate* find(std::string_view measure) const { return find_measure(measures, measure); }
};

// Two policies on the items of one task.
struct EvaluationPair {
  std::string task;
  TaskKind kind = TaskKind::choices;
  std::size_t shots = 0;
  std::size_t a = 0, b = 0;  // policies
  std::size_t items = 0;
  std::vector<Measure> differences;  // a - b, paired, of each measure
  std::optional<double> mcnemar_p;   // of the items that only one of them answers rightly; choices only

  const Estimate* find(std::string_view measure) const { return find_measure(differences, measure); }
};

struct Evaluation {
  std::vector<EvaluationRow> rows;
  std::vector<EvaluationPair> pairs;  // of bounded policies at one budget
};

// Items done and to do, of all policies together; false cancels.
using ItemProgress = std::function<bool(std::size_t done, std::size_t total)>;

// Computes what `results` does not have yet, and adds it, batch by batch.
Result<Evaluation> evaluate(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                            const EvaluationOptions& options, ItemResults& results, const ItemProgress& progress = {});

}  // namespace a2sf
