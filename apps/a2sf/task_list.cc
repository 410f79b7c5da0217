#include "task_list.h"

#include "outcome.h"

#include <fmt/format.h>

namespace a2sf::app {

void add_task_flags(CLI::App* command, TaskFlags* flags, const std::string& data_text, const std::string& more_tasks) {
  command->add_option("--data", flags->data, data_text)->type_name("DIR");
  command
      ->add_option("--tasks", flags->tasks,
                   fmt::format("Tasks, separated by commas, or all: {}{}", task_names(TaskKind::choices), more_tasks))
      ->type_name("T,...")
      ->capture_default_str();
  command->add_option("--limit", flags->limit, "Only the first N items of each task")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 30));
  command
      ->add_option("--rules", flags->rules,
                   "lm-eval: as lm-evaluation-harness 0.4, by sums of log-probabilities; paper: as H2O's and A2SF's "
                   "scripts, by means per token")
      ->type_name("R")
      ->check(CLI::IsMember({"lm-eval", "paper"}))
      ->capture_default_str();
}

std::vector<TaskInfo> read_choice_tasks(const TaskFlags& flags) {
  if (flags.tasks == "all") return {all_tasks().begin(), all_tasks().end()};
  std::vector<TaskInfo> tasks;
  for (const std::string& name : split_list(flags.tasks)) tasks.push_back(need(find_task(name), kWrongUsage));
  return tasks;
}

std::vector<EvalTaskInfo> read_eval_tasks(const TaskFlags& flags) {
  std::vector<EvalTaskInfo> tasks;
  if (flags.tasks == "all") {
    for (const TaskInfo& task : all_tasks()) tasks.push_back(need(find_eval_task(task.name)));
    return tasks;
  }
  for (const std::string& name : split_list(flags.tasks)) tasks.push_back(need(find_eval_task(name), kWrongUsage));
  return tasks;
}

std::string task_names(TaskKind kind) {
  std::string names;
  for (const EvalTaskInfo& task : eval_tasks()) {
    if (task.kind == kind) names += fmt::format("{}{}", names.empty() ? "" : ", ", task.name);
  }
  return names;
}

EvalRules rules_of(const TaskFlags& flags) { return flags.rules == "paper" ? EvalRules::paper : EvalRules::lm_eval; }

}  // namespace a2sf::app
