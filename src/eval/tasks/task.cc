#include "eval/tasks/task.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "eval/tasks/prompts.h"

namespace a2sf {
namespace {

constexpr std::array kChoiceTasks = {
    TaskInfo{"openbookqa", "openbookqa/test.jsonl", "openbookqa/train.jsonl", true},
    TaskInfo{"winogrande", "winogrande/validation.jsonl", "winogrande/train_first2000.jsonl", false},
    TaskInfo{"piqa", "piqa/validation.jsonl", "piqa/train_first2000.jsonl", true},
    TaskInfo{"copa", "copa/validation.jsonl", "copa/train.jsonl", false},
    TaskInfo{"arc_easy", "arc_easy/test.jsonl", "arc_easy/train.jsonl", true},
    TaskInfo{"arc_challenge", "arc_challenge/test.jsonl", "arc_challenge/train.jsonl", true},
    TaskInfo{"mathqa", "mathqa/test.jsonl", "mathqa/validation_first1000.jsonl", true}};

Result<std::vector<ChoiceItem>> read_file(const std::string& path, const TaskInfo& task, EvalRules rules,
                                          std::size_t limit) {
  const auto records = read_records(path, limit);
  if (!records) return tl::unexpected(records.error());
  std::vector<ChoiceItem> items;
  for (const Record& record : *records) {
    auto item = read_item(record, task.name, rules);
    if (!item) return item.map([](const ChoiceItem&) { return std::vector<ChoiceItem>(); });
    item->item = items.size();
    items.push_back(std::move(*item));
  }
  return items;
}

// Solved examples, each with its right choice, and a blank line after each of them. `spared` of them is none.
std::string examples_for(std::size_t item, std::size_t shots, const std::vector<ChoiceItem>& solved,
                         std::optional<std::size_t> spared) {
  std::string text;
  const std::size_t count = solved.size() - (spared ? 1 : 0);
  for (std::size_t j = 0; j < shots && count > 0; ++j) {
    const std::size_t number = (item * shots + j) % count;
    const ChoiceItem& example = solved[number + (spared && number >= *spared ? 1 : 0)];
    const Choice& right = example.choices[example.gold];
    text += right.context + right.continuation + "\n\n";
  }
  return text;
}

}  // namespace

std::span<const TaskInfo> all_tasks() { return kChoiceTasks; }

Result<TaskInfo> find_task(std::string_view name) {
  const auto found =
      std::find_if(kChoiceTasks.begin(), kChoiceTasks.end(), [&](const TaskInfo& task) { return task.name == name; });
  if (found != kChoiceTasks.end()) return *found;
  std::string names;
  for (const TaskInfo& task : kChoiceTasks) names += fmt::format("{}{}", names.empty() ? "" : ", ", task.name);
  return fail(ErrorKind::bad_input, fmt::format("there is no task '{}'; there are {}", name, names));
}

Result<std::vector<ChoiceItem>> read_items(const std::string& data, const TaskInfo& task, const TaskOptions& options) {
  const auto path_of = [&](std::string_view file) { return fmt::format("{}/{}", data, file); };
  auto items = read_file(path_of(options.tuning ? task.shot_file : task.file), task, options.rules, options.limit);
  if (!items || options.shots == 0) return items;
  const auto solved = read_file(path_of(task.shot_file), task, options.rules, 0);
  if (!solved) return solved;
  for (ChoiceItem& item : *items) {
    const std::string examples =
        examples_for(item.item, options.shots, *solved, options.tuning ? std::optional(item.item) : std::nullopt);
    for (Choice& choice : item.choices) choice.context.insert(0, examples);
  }
  return items;
}

}  // namespace a2sf
