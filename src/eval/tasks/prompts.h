// One item of a task as its context and choices.
#pragma once

#include "eval/tasks/record.h"
#include "eval/tasks/task.h"

namespace a2sf {

// Without examples and without its number. Errors name the record's file and line.
Result<ChoiceItem> read_item(const Record& record, std::string_view task, EvalRules rules);

}  // namespace a2sf
