#include "eval/tasks/prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "text/terminal.h"

namespace a2sf {
namespace {

constexpr const char* kBlanks = " \t\n\v\f\r";

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1));
}

std::string in_one_line(std::string_view text) { return text::escape_controls(text, text::Layout::one_line); }

// Of UTF-8: every byte but the second and later ones of a character.
std::size_t codepoints(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) >> 6) != 2; }));
}

ChoiceItem item_of(const std::string& context, const std::vector<std::string>& choices, std::size_t gold) {
  ChoiceItem item{0, {}, gold};
  for (const std::string& choice : choices) item.choices.push_back({context, " " + choice, codepoints(choice)});
  return item;
}

// Where a label stands among the labels.
Result<std::size_t> index_of(const Record& record, const std::string& label, const std::vector<std::string>& labels) {
  const auto found = std::find(labels.begin(), labels.end(), trimmed(label));
  if (found != labels.end()) return static_cast<std::size_t>(found - labels.begin());
  return record.wrong(fmt::format("the right answer '{}' is none of the choices", in_one_line(label)));
}

Result<ChoiceItem> read_labelled(const Record& record, const char* question, const std::string& before,
                                 const std::string& after) {
  const auto asked = record.text(question), answer = record.text("answerKey");
  const auto choices = record.texts("choices", "text"), labels = record.texts("choices", "label");
  if (!asked) return tl::unexpected(asked.error());
  if (!choices) return tl::unexpected(choices.error());
  if (!labels) return tl::unexpected(labels.error());
  if (!answer) return tl::unexpected(answer.error());
  if (choices->size() != labels->size()) return record.wrong("there are not as many labels as choices");
  const auto gold = index_of(record, *answer, *labels);
  if (!gold) return tl::unexpected(gold.error());
  return item_of(before + *asked + after, *choices, *gold);
}

Result<ChoiceItem> read_openbookqa(const Record& record, EvalRules) {
  return read_labelled(record, "question_stem", "", "");
}

Result<ChoiceItem> read_arc(const Record& record, EvalRules) {
  return read_labelled(record, "question", "Question: ", "\nAnswer:");
}

Result<ChoiceItem> read_piqa(const Record& record, EvalRules) {
  const auto fields = record.fields({"goal", "sol1", "sol2", "label"});
  if (!fields) return tl::unexpected(fields.error());
  const auto gold = index_of(record, (*fields)[3], {"0", "1"});
  if (!gold) return tl::unexpected(gold.error());
  return item_of("Question: " + (*fields)[0] + "\nAnswer:", {(*fields)[1], (*fields)[2]}, *gold);
}

// Partial evaluation: the contexts differ, what follows them is scored.
Result<ChoiceItem> read_winogrande(const Record& record, EvalRules) {
  const auto fields = record.fields({"sentence", "option1", "option2", "answer"});
  if (!fields) return tl::unexpected(fields.error());
  const std::string& sentence = (*fields)[0];
  const std::size_t gap = sentence.find('_');
  if (gap == std::string::npos) return record.wrong("the sentence has no '_'");
  const auto gold = index_of(record, (*fields)[3], {"1", "2"});
  if (!gold) return tl::unexpected(gold.error());
  const std::string rest = trimmed(std::string_view(sentence).substr(gap + 1));
  ChoiceItem item{0, {}, *gold};
  for (const std::size_t option : {1U, 2U})
    item.choices.push_back({sentence.substr(0, gap) + (*fields)[option], " " + rest, codepoints(rest)});
  return item;
}

std::string with_small_first_letter(std::string text) {
  if (!text.empty()) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  return text;
}

// Harness 0.4 has two blanks before a choice: the choices begin with one of their own.
Result<ChoiceItem> read_copa(const Record& record, EvalRules rules) {
  const auto fields = record.fields({"premise", "choice1", "choice2", "question", "label"});
  if (!fields) return tl::unexpected(fields.error());
  const std::string premise = trimmed((*fields)[0]);
  if (premise.empty()) return record.wrong("the premise is empty");
  const auto question = index_of(record, (*fields)[3], {"cause", "effect"});
  if (!question)
    return record.wrong(fmt::format("the question '{}' is neither cause nor effect", in_one_line((*fields)[3])));
  const auto gold = index_of(record, (*fields)[4], {"0", "1"});
  if (!gold) return tl::unexpected(gold.error());
  const std::string blank = rules == EvalRules::lm_eval ? " " : "";
  ChoiceItem item = item_of(premise.substr(0, premise.size() - 1) + (*question == 0 ? " because" : " therefore"),
                            {with_small_first_letter((*fields)[1]), with_small_first_letter((*fields)[2])}, *gold);
  for (Choice& choice : item.choices) choice.continuation.insert(0, blank);
  return item;
}

// "a ) 38 , b ) 27.675 , ..., e ) none of these": as the harness's expression finds them, [abcd] \) .*?, |e \) .*?$,
// without the letter in front and without blanks and commas at the end.
std::vector<std::string> split_options(std::string_view options) {
  std::vector<std::string> found;
  for (std::size_t at = 0; at < options.size();) {
    const bool is_last = options[at] == 'e';
    const bool begins = ((options[at] >= 'a' && options[at] <= 'd') || is_last) && options.substr(at + 1, 3) == " ) ";
    const std::size_t comma = begins ? options.find(", ", at + 4) : std::string_view::npos;
    const std::size_t end = is_last ? options.size() : comma + 2;
    if (!begins || (!is_last && comma == std::string_view::npos)) {
      ++at;
      continue;
    }
    const std::string_view option = options.substr(at + 4, end - at - 4);
    found.emplace_back(option.substr(0, option.find_last_not_of(" ,") + 1));
    at = end;
  }
  return found;
}

Result<ChoiceItem> read_mathqa(const Record& record, EvalRules) {
  const auto fields = record.fields({"Problem", "options", "correct"});
  if (!fields) return tl::unexpected(fields.error());
  const auto options = split_options((*fields)[1]);
  const auto gold = index_of(record, (*fields)[2], {"a", "b", "c", "d", "e"});
  if (!gold) return tl::unexpected(gold.error());
  if (*gold >= options.size()) return record.wrong(fmt::format("only {} options can be read", options.size()));
  return item_of("Question: " + (*fields)[0] + "\nAnswer:", options, *gold);
}

constexpr std::pair<std::string_view, Result<ChoiceItem> (*)(const Record&, EvalRules)> kReaders[] = {
    {"openbookqa", read_openbookqa}, {"winogrande", read_winogrande}, {"piqa", read_piqa},    {"copa", read_copa},
    {"arc_easy", read_arc},          {"arc_challenge", read_arc},     {"mathqa", read_mathqa}};

}  // namespace

Result<ChoiceItem> read_item(const Record& record, std::string_view task, EvalRules rules) {
  const auto reader =
      std::find_if(std::begin(kReaders), std::end(kReaders), [&](const auto& each) { return each.first == task; });
  if (reader == std::end(kReaders)) return record.wrong(fmt::format("there is no task '{}'", task));
  return reader->second(record, rules);
}

}  // namespace a2sf
