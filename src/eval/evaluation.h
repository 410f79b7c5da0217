// Tasks x shots x policies: what each policy answers, item by item, and how well.
#pragma once

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
  std::vector<TaskInfo> tasks;
  std::vector<std::size_t> shots;
  std::vector<EvaluatedPolicy> policies;
  std::size_t limit = 0;  // the first so many items of each task; 0: all
  EvalRules rules = EvalRules::lm_eval;
  KvType kv_type = KvType::f16;
};

// Results of one policy on one task.
struct EvaluationRow {
  std::string task;
  std::size_t shots = 0;
  std::size_t policy = 0;  // among the options'
  std::size_t items = 0;
  Estimate acc, acc_norm;  // 0 to 1; no acc_norm where TaskInfo says so
  bool has_acc_norm = false;
  Estimate gold_logprob;  // of the right choice, in nats: finer than accuracy
};

// Two policies on the items of one task.
struct EvaluationPair {
  std::string task;
  std::size_t shots = 0;
  std::size_t a = 0, b = 0;  // policies
  std::size_t items = 0;
  double acc_difference = 0;    // a - b
  double mcnemar_p = 1;         // of the items that only one of them answers rightly
  Estimate logprob_difference;  // a - b, of the right choice, paired
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
