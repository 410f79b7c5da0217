// A task as an evaluation runs it: its items, and what each of them comes to under a policy.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/outcome.h"

namespace a2sf {

// What there is: a row of a table of tasks, or the text of wikitext2.
struct EvalTaskInfo {
  std::string name;
  std::string file;  // what is reported on, in the data folder; empty: the task makes its items
  TaskKind kind;
};

std::vector<EvalTaskInfo> eval_tasks();
// Fails where there is no such task; the error lists what there is.
Result<EvalTaskInfo> find_eval_task(std::string_view name);

struct EvalTaskOptions {
  std::string data;  // the folder of the tasks' folders; what makes its items needs none
  std::size_t shots = 0, limit = 0;
  EvalRules rules = EvalRules::lm_eval;
  KvType kv_type = KvType::f16;
};

// What an item came to: its index among all items. false cancels.
using FoundOutcome = std::function<bool(std::size_t item, Outcome outcome)>;

// With the items that were read from its file. The model and the tokenizer must outlive it.
class EvalTask {
 public:
  virtual ~EvalTask() = default;
  virtual std::size_t items() const = 0;
  // Runs the items of these indices, in any order, and hands out each outcome as soon as it is known.
  virtual Status run(const PolicySpec& policy, std::span<const std::size_t> items, const FoundOutcome& found) const = 0;
};

// Reads the task's files. Errors name the file and the line.
Result<std::unique_ptr<EvalTask>> open_task(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                                            const EvalTaskInfo& info, const EvalTaskOptions& options);

}  // namespace a2sf
