#include "tune_classes.h"

#include "outcome.h"
#include "progress.h"
#include "tables.h"
#include "tune/class_search.h"
#include "tune/vocabulary_classes.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace a2sf::app {
namespace {

std::string table_of(const TokenClasses& classes) {
  std::vector<std::vector<std::string>> rows = {{"class", "tokens", "memory", "weight"}};
  for (std::size_t i = 0; i < classes.classes.size(); ++i) {
    const TokenClass& each = classes.classes[i];
    const auto tokens = std::count(classes.class_of.begin(), classes.class_of.end(), i);
    rows.push_back({each.name, with_commas(static_cast<std::uint64_t>(tokens)), fmt::format("{:.2f}", each.memory),
                    fmt::format("{:.2f}", each.weight)});
  }
  return aligned_table(rows);
}

Json rows_json(const TokenClasses& classes) {
  Json rows = Json::array();
  for (std::size_t i = 0; i < classes.classes.size(); ++i) {
    const TokenClass& each = classes.classes[i];
    rows.push_back({{"class", each.name},
                    {"tokens", std::count(classes.class_of.begin(), classes.class_of.end(), i)},
                    {"memory", each.memory},
                    {"weight", each.weight}});
  }
  return rows;
}

PolicySpec policy_of(const ClassTuning& tuning) {
  const auto budgets = split_list(tuning.budgets.empty() ? kClassBudget : tuning.budgets);
  if (tuning.policies.size() > 1 || budgets.size() > 1)
    fail_with(kWrongUsage, "--classes: take one --policy and one --budget");
  return with_budget(tuning.policies.front(), static_cast<std::int64_t>(read_number("--budget", budgets.front(), 1)));
}

// Windows spread over the text.
TuneWindows windows_of(const ClassTuning& tuning, std::span<const Token> tokens, const PolicySpec& policy) {
  if (const auto* count = std::get_if<BudgetCount>(&policy.budget.budget);
      count != nullptr && static_cast<std::int64_t>(tuning.longest) <= count->tokens) {
    fail_with(kWrongUsage, fmt::format("--ctx {}: a window of so many tokens evicts nothing at budget {}",
                                       tuning.longest, count->tokens));
  }
  if (tokens.size() < tuning.longest) {
    fail_with(kFailed, fmt::format("{}: {} tokens, fewer than one window of {}: choose a smaller --ctx",
                                   harmless(text_name(tuning.text)), tokens.size(), tuning.longest));
  }
  return {tokens, tuning.longest, std::min(tuning.windows, tokens.size() / tuning.longest)};
}

}  // namespace

void add_class_mode(CLI::App* command, std::string* text) {
  const Heading heading(command, "Token classes");
  command
      ->add_option(
          "--classes", *text,
          "Make classes of tokens by the spelling of the vocabulary and the words of this text, find on it how "
          "long each is remembered and what it weighs, and write them for policies' classes=FILE")
      ->type_name("TEXT");
}

void tune_classes(const ClassTuning& tuning) {
  ClassSearch search{.policy = policy_of(tuning)};
  if (tuning.calls > 0) search.calls = tuning.calls;
  const Tokenizer tokenizer = need(Tokenizer::load(tuning.model.model));
  const std::string text = read_text(tuning.text);
  const auto tokens = need(tokenizer.encode(text, tokenizer.adds_bos(), false));
  const TuneWindows windows = windows_of(tuning, tokens, search.policy);
  const auto model = load_model(tuning.model);
  warn_past_context(model->info(), tuning.longest);
  const std::string target = tuning.file.empty() ? tuning.model.model + ".classes.json" : tuning.file;
  OutputFile file(target);
  const auto start = std::chrono::steady_clock::now();
  Progress progress("tune");
  TokenClasses classes =
      need(search_classes(model, windows, classes_of_vocabulary(tokenizer, text), search,
                          [&](std::size_t done, std::size_t total) { return progress.update(done, total); }));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  classes.texts = {tuned_text(tuning.text, text_hash(text))};
  file.write(to_json(classes));
  file.commit();
  if (target == "-") return;
  Json document = new_document("tune", *model, tuning.model);
  document.update(policy_json(search.policy));
  document["text"] = tuning.text;
  document["ctx"] = tuning.longest;
  document["windows"] = windows.count;
  document["seconds"] = seconds;
  document["file"] = target;
  document["rows"] = rows_json(classes);
  Delivery({.json = tuning.output.json, .file = ""})
      .deliver(document, table_of(classes) + fmt::format("{} written in {:.0f} s\n", harmless(target), seconds));
}

}  // namespace a2sf::app
