// Any bytes as a data file of every task, as a file of prompts and as an answer: an error of one line, or items whose
// right choice is one of theirs, and scores from 0 to 1.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "eval/tasks/answer_prompts.h"
#include "eval/tasks/prompts.h"

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

void require_one_line(const a2sf::Error& error) {
  require(!error.message.empty() && error.message.find('\n') == std::string::npos);
}

void require_scores(const a2sf::Record& record, const a2sf::AnswerTaskInfo& task, std::string_view answer) {
  const auto item = a2sf::read_answer_item(record, task.name, "{context}{input}");
  if (!item) return require_one_line(item.error());
  for (const std::string_view text : {answer, std::string_view(item->golds[0])}) {
    const double score = a2sf::score_answer(task, *item, text);
    require(score >= 0 && score <= 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto found = a2sf::find_template(text, "templates.json", "lcc");
  if (!found) require_one_line(found.error());
  const auto records = a2sf::parse_records(text, "data.jsonl", 0);
  if (!records) {
    require_one_line(records.error());
    return 0;
  }
  for (const a2sf::Record& record : *records) {
    for (const a2sf::AnswerTaskInfo& task : a2sf::answer_tasks()) require_scores(record, task, text);
    for (const a2sf::TaskInfo& task : a2sf::all_tasks()) {
      for (const a2sf::EvalRules rules : {a2sf::EvalRules::lm_eval, a2sf::EvalRules::paper}) {
        const auto item = a2sf::read_item(record, task.name, rules);
        if (item) {
          require(item->gold < item->choices.size());
        } else {
          require_one_line(item.error());
        }
      }
    }
  }
  return 0;
}
