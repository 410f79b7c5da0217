// Tasks that are answered in words: GSM8K as lm-evaluation-harness 0.4 asks it, LongBench v1, and facts in a haystack
// (haystack.h). Which file a task reads, how an item is prompted, how right an answer is.
#pragma once

#include <a2sf/result.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/tasks/task.h"

namespace a2sf {

// Facts hidden in filler, of which one is asked for.
struct Haystack {
  std::size_t tokens = 0;  // of prompt and answer together; 0: the task reads a file
  std::size_t facts = 0;
};

// A row of the table of tasks. Files are JSON lines in the data folder; prompts of LongBench are beside its files, in
// templates.json.
struct AnswerTaskInfo {
  std::string_view name;
  std::string_view file;       // what is reported on; empty: the items are made
  std::string_view shot_file;  // what solved examples are drawn from; empty: the task has none
  std::size_t most_tokens;     // of an answer
  std::string_view stop;       // text at which an answer ends, itself no part of it; empty: none
  bool cut_in_the_middle;      // of a prompt that is too long; otherwise its beginning goes
  Haystack haystack = {};
};

std::span<const AnswerTaskInfo> answer_tasks();
const AnswerTaskInfo* find_answer_task(std::string_view name);  // nullptr: there is none

struct AnswerItem {
  std::size_t item;                  // its number in the file, from 0
  std::string prompt;                // whole, with its examples
  std::vector<std::string> golds;    // right answers: the best match counts
  std::vector<std::string> classes;  // of a classification (trec); otherwise empty
};

// How many tokens a prompt has.
using TokenCounter = std::function<Result<std::size_t>(std::string_view text)>;

// The items of a task in the order of the file. Examples are chosen as for other tasks, the rules make no difference;
// shots with a task that has no examples are an error. Errors name the file and the line. `count` is called for items
// that are made, and may be empty otherwise.
Result<std::vector<AnswerItem>> read_answer_items(const std::string& data, const AnswerTaskInfo& task,
                                                  const TaskOptions& options, const TokenCounter& count);

// 0 to 1, by the task's own metric.
double score_answer(const AnswerTaskInfo& task, const AnswerItem& item, std::string_view answer);

}  // namespace a2sf
