// Any bytes as a data file of every task: an error of one line, or items whose right choice is one of theirs.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "eval/tasks/prompts.h"

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

void require_one_line(const a2sf::Error& error) {
  require(!error.message.empty() && error.message.find('\n') == std::string::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto records = a2sf::parse_records({reinterpret_cast<const char*>(data), size}, "data.jsonl", 0);
  if (!records) {
    require_one_line(records.error());
    return 0;
  }
  for (const a2sf::Record& record : *records) {
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
