#include "eval/tasks/answer_task.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "core/text_file.h"
#include "eval/tasks/answer_prompts.h"
#include "eval/tasks/filler.h"
#include "eval/tasks/haystack.h"
#include "eval/tasks/metrics.h"

namespace a2sf {
namespace {

constexpr std::size_t kKeyTokens = 16;  // of a key of five digits and a few words

constexpr AnswerTaskInfo haystack(std::string_view name, std::size_t tokens, std::size_t facts) {
  return {name, "", "", kKeyTokens, "", true, {tokens, facts}};
}

constexpr std::array kAnswerTasks = {
    AnswerTaskInfo{"gsm8k", "gsm8k/test.jsonl", "gsm8k/train_first1000.jsonl", 256, "Question:", false},
    AnswerTaskInfo{"qasper", "longbench_mini/qasper.jsonl", "", 128, "", true},
    AnswerTaskInfo{"hotpotqa", "longbench_mini/hotpotqa.jsonl", "", 32, "", true},
    AnswerTaskInfo{"gov_report", "longbench_mini/gov_report.jsonl", "", 512, "", true},
    AnswerTaskInfo{"trec", "longbench_mini/trec.jsonl", "", 64, "", true},
    AnswerTaskInfo{"samsum", "longbench_mini/samsum.jsonl", "", 128, "\n", true},
    AnswerTaskInfo{"passage_retrieval_en", "longbench_mini/passage_retrieval_en.jsonl", "", 32, "", true},
    AnswerTaskInfo{"lcc", "longbench_mini/lcc.jsonl", "", 64, "", true},
    haystack("passkey-1k", 1024, 1),
    haystack("passkey-2k", 2048, 1),
    haystack("passkey-4k", 4096, 1),
    haystack("passkey-8k", 8192, 1),
    haystack("needles-2k", 2048, 8),
    haystack("needles-4k", 4096, 8),
    haystack("needles-8k", 8192, 8)};

// Each fact of an item has a name of its own.
static_assert(std::all_of(kAnswerTasks.begin(), kAnswerTasks.end(),
                          [](const AnswerTaskInfo& task) { return task.haystack.facts <= kFillerNames; }));

Result<std::string> read_template(const std::string& data, const AnswerTaskInfo& task) {
  if (task.name == "gsm8k") return "";
  const std::string path = fmt::format("{}/{}/templates.json", data, task.file.substr(0, task.file.rfind('/')));
  const auto text = read_text_file(path, "file of prompts");
  if (!text) return text;
  return find_template(*text, path, task.name);
}

// What `read` makes of each line of a file.
template <class Read, class Each = typename std::invoke_result_t<Read, const Record&>::value_type>
Result<std::vector<Each>> read_lines(const std::string& path, std::size_t limit, const Read& read) {
  const auto records = read_records(path, limit);
  if (!records) return tl::unexpected(records.error());
  std::vector<Each> all;
  for (const Record& record : *records) {
    auto each = read(record);
    if (!each) return tl::unexpected(each.error());
    all.push_back(std::move(*each));
  }
  return all;
}

// LongBench takes the first line where models go on with examples of their own.
std::string_view first_line(std::string_view answer) {
  answer.remove_prefix(std::min(answer.size(), answer.find_first_not_of('\n')));
  return answer.substr(0, answer.find('\n'));
}

double score_against(const AnswerTaskInfo& info, const AnswerItem& item, std::string_view answer,
                     std::string_view gold) {
  const std::string_view task = info.name;
  if (info.haystack.tokens > 0) return first_number_match(answer, gold);
  if (task == "gsm8k") return number_match(answer, gold);
  if (task == "gov_report") return rouge_l(answer, gold);
  if (task == "trec") return class_match(first_line(answer), gold, item.classes);
  if (task == "samsum") return rouge_l(first_line(answer), gold);
  if (task == "passage_retrieval_en") return paragraph_match(answer, gold);
  if (task == "lcc") return code_similarity(answer, gold);
  return word_f1(answer, gold);
}

}  // namespace

std::span<const AnswerTaskInfo> answer_tasks() { return kAnswerTasks; }

const AnswerTaskInfo* find_answer_task(std::string_view name) {
  const auto found = std::find_if(kAnswerTasks.begin(), kAnswerTasks.end(),
                                  [&](const AnswerTaskInfo& task) { return task.name == name; });
  return found == kAnswerTasks.end() ? nullptr : &*found;
}

Result<std::vector<AnswerItem>> read_answer_items(const std::string& data, const AnswerTaskInfo& task,
                                                  const TaskOptions& options, const TokenCounter& count) {
  if (options.shots > 0 && task.shot_file.empty())
    return fail(ErrorKind::bad_input,
                fmt::format("the task '{}' has no solved examples: it can be run with 0 shots only", task.name));
  if (task.haystack.tokens > 0) return make_haystacks(task, options.limit, count);
  const auto prompt_template = read_template(data, task);
  if (!prompt_template) return tl::unexpected(prompt_template.error());
  auto items = read_lines(fmt::format("{}/{}", data, task.file), options.limit,
                          [&](const Record& record) { return read_answer_item(record, task.name, *prompt_template); });
  if (!items) return items;
  for (std::size_t i = 0; i < items->size(); ++i) (*items)[i].item = i;
  if (options.shots == 0) return items;
  const auto solved = read_lines(fmt::format("{}/{}", data, task.shot_file), 0, read_solved_example);
  if (!solved) return tl::unexpected(solved.error());
  for (AnswerItem& item : *items) {
    std::string examples;
    for (std::size_t j = 0; j < options.shots; ++j)
      examples += (*solved)[(item.item * options.shots + j) % solved->size()];
    item.prompt.insert(0, examples);
  }
  return items;
}

double score_answer(const AnswerTaskInfo& task, const AnswerItem& item, std::string_view answer) {
  double best = 0;
  for (const std::string& gold : item.golds) best = std::max(best, score_against(task, item, answer, gold));
  return best;
}

}  // namespace a2sf
