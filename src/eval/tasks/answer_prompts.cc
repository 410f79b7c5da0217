#include "eval/tasks/answer_prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "eval/tasks/metrics.h"
#include "text/terminal.h"

namespace a2sf {
namespace {

constexpr std::size_t kLongestGold = 1 << 16;  // bytes; metrics compare every word with every word of an answer

// In one pass: what a field says may itself look like a field.
std::string filled(std::string_view prompt_template, std::string_view context, std::string_view input) {
  constexpr std::string_view kContext = "{context}", kInput = "{input}";
  std::string text;
  for (std::string_view rest = prompt_template; !rest.empty();) {
    const std::string_view field = rest.starts_with(kContext) ? kContext : rest.starts_with(kInput) ? kInput : "";
    text += field == kContext ? context : field == kInput ? input : rest.substr(0, 1);
    rest.remove_prefix(std::max<std::size_t>(1, field.size()));
  }
  return text;
}

std::string ask(const std::string& question) { return "Question: " + question + "\nAnswer:"; }

Result<AnswerItem> read_gsm8k(const Record& record) {
  const auto fields = record.fields({"question", "answer"});
  if (!fields) return tl::unexpected(fields.error());
  const std::string& answer = (*fields)[1];
  constexpr std::string_view kMark = "#### ";
  const std::size_t mark = answer.rfind(kMark);
  if (mark == std::string::npos) return record.wrong("the answer has no number after \"#### \"");
  return AnswerItem{0, ask((*fields)[0]), {answer.substr(mark + kMark.size())}, {}};
}

}  // namespace

Result<std::string> find_template(std::string_view text, const std::string& path, std::string_view task) {
  const auto templates = nlohmann::json::parse(text, nullptr, false);
  if (!templates.is_object()) return fail(ErrorKind::bad_input, path + ": this is no JSON object");
  const auto found = templates.find(std::string(task));
  if (found != templates.end() && found->is_string()) return found->get<std::string>();
  return fail(ErrorKind::bad_input, fmt::format("{} has no prompt of the task '{}'", path, task));
}

Result<AnswerItem> read_answer_item(const Record& record, std::string_view task, std::string_view prompt_template) {
  if (task == "gsm8k") return read_gsm8k(record);
  const auto fields = record.fields({"context", "input"});
  if (!fields) return tl::unexpected(fields.error());
  auto golds = record.texts("answers");
  if (!golds) return tl::unexpected(golds.error());
  AnswerItem item{0, filled(prompt_template, (*fields)[0], (*fields)[1]), std::move(*golds), {}};
  if (task == "trec") {
    auto classes = record.texts("all_classes");
    if (!classes) return tl::unexpected(classes.error());
    item.classes = std::move(*classes);
  }
  // Right answers that no answer could match would only lower the mean.
  for (const std::string& gold : item.golds) {
    const std::string shown = text::escape_controls(gold, text::Layout::one_line);
    if (gold.size() > kLongestGold)
      return record.wrong(fmt::format("a right answer of {} bytes is longer than {}", gold.size(), kLongestGold));
    if (task == "trec" && std::find(item.classes.begin(), item.classes.end(), gold) == item.classes.end())
      return record.wrong(fmt::format("the right answer '{}' is none of the classes", shown));
    if (task == "passage_retrieval_en" && paragraph_match(gold, gold) == 0)
      return record.wrong(fmt::format("the right answer '{}' names no paragraph", shown));
  }
  return item;
}

Result<std::string> read_solved_example(const Record& record) {
  const auto fields = record.fields({"question", "answer"});
  if (!fields) return tl::unexpected(fields.error());
  return ask((*fields)[0]) + " " + (*fields)[1] + "\n\n";
}

}  // namespace a2sf
