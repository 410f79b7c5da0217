// --data DIR, --tasks T,..., --limit N and --rules R: which items of which tasks.
#pragma once

#include "eval/tasks/task.h"
#include "options.h"

#include <string>
#include <vector>

namespace a2sf::app {

struct TaskFlags {
  std::string data, tasks = "all", rules = "lm-eval";
  std::size_t limit = 0;
};
// `data_text`: what --data is for.
void add_task_flags(CLI::App* command, TaskFlags* flags, const std::string& data_text);

std::vector<TaskInfo> read_tasks(const TaskFlags& flags);
EvalRules rules_of(const TaskFlags& flags);

}  // namespace a2sf::app
