#include "tune_hooks.h"

#include "outcome.h"
#include "progress.h"
#include "tables.h"
#include "tune/learn.h"
#include "tune/multi_weights.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

namespace a2sf::app {
namespace {

constexpr std::int64_t kBudget = 128;

std::int64_t budget_of(const HookTuneFlags& flags) {
  return flags.budget.empty() ? kBudget : static_cast<std::int64_t>(read_number("--budget", flags.budget, 1));
}

LearnedKind kind_of(const std::string& word) {
  if (word == "linear") return LearnedKind::linear;
  if (word == "mlp") return LearnedKind::mlp;
  fail_with(kWrongUsage, fmt::format("--kind '{}' is none of linear, mlp", harmless(word)));
}

// A text in windows, and the model that reads it.
struct Reading {
  Reading(const HookTuneFlags& flags, const std::string& file)
      : tokenizer(need(Tokenizer::load(flags.model.model))),
        text(read_tokens({.file = file, .tokens = flags.tokens}, tokenizer)),
        model(load_model(flags.model)),
        windows{text.tokens, flags.window,
                std::max<std::size_t>(1, std::min(flags.windows, text.tokens.size() / flags.window))} {
    warn_past_context(model->info(), flags.window);
  }

  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }

  Tokenizer tokenizer;
  TokenText text;
  std::shared_ptr<const Model> model;
  TuneWindows windows;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
};

Json document_of(const HookTuneFlags& flags, const Reading& reading, const std::string& text) {
  Json document = new_document("tune", *reading.model, flags.model);
  document["text"] = text;
  document["ctx"] = flags.window;
  document["windows"] = reading.windows.count;
  document["budget"] = budget_of(flags);
  document["seconds"] = reading.seconds();
  return document;
}

TuneProgress shown_by(Progress& progress) {
  return [&progress](std::size_t done, std::size_t total) { return progress.update(done, total); };
}

}  // namespace

void tune_learned(const HookTuneFlags& flags) {
  const LearnOptions options{kind_of(flags.kind), budget_of(flags)};
  const Reading reading(flags, flags.learn);
  const std::string target = flags.file.empty() ? flags.model.model + ".learned.json" : flags.file;
  OutputFile file(target);
  LearnedModel learned;
  {
    Progress progress("tune");
    learned = need(learn_score(reading.model, reading.windows, options, shown_by(progress)));
  }
  learned.texts = {tuned_text(flags.learn, reading.text.hash)};
  file.write(to_json(learned));
  file.commit();
  if (target == "-") return;
  Json document = document_of(flags, reading, flags.learn);
  document["kind"] = flags.kind;
  document["file"] = target;
  Delivery({.json = flags.output.json, .file = ""})
      .deliver(document, fmt::format("{} written in {:.0f} s: --policy learned:model={}\n", harmless(target),
                                     reading.seconds(), harmless(target)));
}

void tune_multi_weights(const HookTuneFlags& flags) {
  const MultiOptions options{budget_of(flags), flags.calls == 0 ? MultiOptions().calls : flags.calls};
  if (!flags.file.empty()) fail_with(kWrongUsage, "-o: --multi writes no file, it prints a policy");
  const Reading reading(flags, flags.multi);
  MultiWeights found;
  {
    Progress progress("tune");
    found = need(tune_multi(reading.model, reading.windows, options, shown_by(progress)));
  }
  Json document = document_of(flags, reading, flags.multi);
  document.update(policy_json(found.spec));
  document["perplexity"] = std::exp(found.loss);
  std::vector<std::vector<std::string>> rows = {{"weights", "perplexity"},
                                                {"found", fmt::format("{:.3f}", std::exp(found.loss))}};
  for (const WeightedLoss& other : found.others) {
    rows.push_back({other.name, fmt::format("{:.3f}", std::exp(other.loss))});
    document["rows"].push_back({{"weights", other.name}, {"perplexity", std::exp(other.loss)}});
  }
  Delivery({.json = flags.output.json, .file = ""})
      .deliver(document, aligned_table(rows) + fmt::format("--policy {}\n", to_string(found.spec)));
}

void add_hook_tune_mode(CLI::App* command, HookTuneFlags* flags) {
  const Heading heading(command, "A policy of its own, on a text");
  command->add_option("--learn", flags->learn, "Train the score of the policy learned: a file for learned:model=FILE")
      ->type_name("TEXT");
  command->add_option("--kind", flags->kind, "Of it: mlp, with a hidden layer of 16, or linear")
      ->type_name("K")
      ->default_val("mlp");
  command
      ->add_option("--multi", flags->multi, "Find the weights of the policy multi, and say what each measure is worth")
      ->type_name("TEXT");
}

}  // namespace a2sf::app
