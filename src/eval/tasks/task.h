// Published evaluation tasks as requests in text: which file a task reads, how an item is prompted, which answer is
// right. Sources of the prompts: lm-evaluation-harness 0.4 and, for EvalRules::paper, 0.3 as the scripts of H2O
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

enum class TaskKind {
  choice,  // the most probable of several continuations
  answer,  // a generated answer, compared with references
  text     // perplexity over windows of a text
};

// A row of the table of tasks.
struct TaskInfo {
  std::string_view name;       // also the folder of its data
  TaskKind kind;
  std::string_view file;       // what is reported on
  std::string_view shot_file;  // what examples are drawn from; empty: it has none
};

std::span<const TaskInfo> all_tasks();
// Fails where there is no such task; the error lists what there is.
Result<TaskInfo> find_task(std::string_view name);

// One continuation of a context, whose log-probability is wanted.
struct Choice {
  std::string context;       // the same for all choices of an item, but for Winogrande's
  std::string continuation;  // what is scored; begins with its blank
  std::size_t codepoints;    // Unicode code points of the choice without its leading blank: what acc_norm divides by
};

struct ChoiceItem {
  std::size_t item;  // its number in the file, from 0
  std::vector<Choice> choices;
  std::size_t gold;
};

struct TaskOptions {
  int shots = 0;          // solved examples before an item: of item i, numbers i * shots + j modulo the shot file's length
  std::size_t limit = 0;  // the first so many items; 0: all
  EvalRules rules = EvalRules::lm_eval;
};

// The items of a task of kind `choice`, in the order of the file. `data` is the folder that has the tasks' folders.
// Errors name the file and the line: a file that is missing, a line that is no JSON object or lacks a field.
Result<std::vector<ChoiceItem>> read_choice_items(const std::string& data, const TaskInfo& task,
                                                  const TaskOptions& options);

// An answer that is generated greedily.
struct AnswerItem {
  std::size_t item;
  std::string prompt;
  std::string shortened_to_fit;         // empty; else the part of the prompt (its context) of which the middle may be
                                        // left out where the whole is longer than the model's context
  std::vector<std::string> references;  // the best of them counts
  std::vector<std::string> classes;     // of a classification: all that there are
};

struct AnswerTask {
  std::vector<AnswerItem> items;
  std::size_t new_tokens;          // an answer has at most so many
  std::vector<std::string> stops;  // it ends before any of them
  bool one_line;                   // of the answer, the first line that is not empty counts
};

// The items of a task of kind `answer`.
Result<AnswerTask> read_answer_task(const std::string& data, const TaskInfo& task, const TaskOptions& options);

// How good an answer is, 0 to 1, by the task's own metric: exact match of the final number (gsm8k), F1 of words, ROUGE-L,
// edit similarity, accuracy of a class, of a number (LongBench).
double score_answer(const TaskInfo& task, const AnswerItem& item, std::string_view answer);

}  // namespace a2sf
