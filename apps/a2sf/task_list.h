// --data DIR, --tasks T,..., --limit N and --rules R: which items of which tasks.
#pragma once

#include "eval/eval_task.h"
#include "options.h"

#include <string>
#include <vector>

namespace a2sf::app {

struct TaskFlags {
  std::string data, tasks = "all", rules = "lm-eval";
  std::size_t limit = 0;
};
// `data_text`: what --data is for. `more_tasks`: those beside the multiple-choice ones, in words.
void add_task_flags(CLI::App* command, TaskFlags* flags, const std::string& data_text,
                    const std::string& more_tasks = "");

// `all` are the multiple-choice tasks; of the others each must be named, where they are allowed.
std::vector<TaskInfo> read_choice_tasks(const TaskFlags& flags);
std::vector<EvalTaskInfo> read_eval_tasks(const TaskFlags& flags);
// The names of those of a kind, separated by commas.
std::string task_names(TaskKind kind);
EvalRules rules_of(const TaskFlags& flags);

}  // namespace a2sf::app
