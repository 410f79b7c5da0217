// One item of a task that is answered in words, as its prompt and right answers.
#pragma once

#include <string>
#include <string_view>

#include "eval/tasks/answer_task.h"
#include "eval/tasks/record.h"

namespace a2sf {

// A LongBench task's prompt with the fields {context} and {input}, out of the text of a file that has one of each task.
Result<std::string> find_template(std::string_view text, const std::string& path, std::string_view task);

// Without examples and without its number. Errors name the record's file and line. GSM8K needs no template.
Result<AnswerItem> read_answer_item(const Record& record, std::string_view task, std::string_view prompt_template);

// A line of GSM8K with its whole answer and a blank line after it.
Result<std::string> read_solved_example(const Record& record);

}  // namespace a2sf
