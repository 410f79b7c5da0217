// Published multiple-choice tasks as requests in text: which file a task reads, how an item is prompted, which choice
// is right. Sources of the prompts: lm-evaluation-harness 0.4 and, for EvalRules::paper, 0.3 as the scripts of H2O
// (arXiv 2306.14048) and A2SF (arXiv 2407.20485) use it.
#pragma once

#include <a2sf/result.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

enum class EvalRules {
  lm_eval,  // a choice's score is the sum of its log-probabilities; context and choice are tokenised together
  paper     // its mean per token; tokenised apart, without BOS
};

// A row of the table of tasks. Files are in the data folder, JSON lines in the field names of the Hugging Face data
// set.
struct TaskInfo {
  std::string_view name;
  std::string_view file;       // what is reported on
  std::string_view shot_file;  // what solved examples are drawn from
  bool has_acc_norm;           // choices of unlike lengths are also compared by their log-probability per code point
};

std::span<const TaskInfo> all_tasks();
// Fails where there is no such task; the error lists what there is.
Result<TaskInfo> find_task(std::string_view name);

// One continuation of a context, whose log-probability is wanted.
struct Choice {
  std::string context;       // the same for all choices of an item, but for Winogrande's
  std::string continuation;  // what is scored; begins with its blank
  std::size_t codepoints;    // Unicode code points of the choice without that blank: what acc_norm divides by
};

struct ChoiceItem {
  std::size_t item;  // its number in the file, from 0
  std::vector<Choice> choices;
  std::size_t gold;
};

struct TaskOptions {
  std::size_t shots = 0;  // solved examples before item i: numbers i * shots + j of the shot file, modulo its length
  std::size_t limit = 0;  // the first so many items; 0: all
  EvalRules rules = EvalRules::lm_eval;
  bool tuning = false;  // the solved examples are the items; those before item i are others than itself
};

// The items of a task in the order of the file. `data` is the folder that has the tasks' folders. Errors name the file
// and the line: a file that is missing or empty, a line that is no JSON object or lacks a field.
Result<std::vector<ChoiceItem>> read_items(const std::string& data, const TaskInfo& task, const TaskOptions& options);

}  // namespace a2sf
