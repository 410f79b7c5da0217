#include "auto_profile.h"
#include "commands.h"
#include "eval/evaluation.h"
#include "eval_masks.h"
#include "eval_tables.h"
#include "options.h"
#include "outcome.h"
#include "policy_list.h"
#include "progress.h"
#include "tables.h"
#include "task_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>

namespace a2sf::app {
namespace {

constexpr const char* kBudgets = "0.2,0.4,0.6";  // where none are given
constexpr int kResultsVersion = 2;

struct Flags {
  ModelFlags model;
  CacheFlags cache;
  PolicyListFlags policies;
  TaskFlags tasks;
  OutputFlags output;
  std::string shots = "0", folder;
  bool masks = false;
};

void require_data(const Flags& flags, const std::vector<EvalTaskInfo>& tasks) {
  if (!flags.tasks.data.empty()) return;
  for (const EvalTaskInfo& task : tasks) {
    if (!task.file.empty())
      fail_with(kWrongUsage,
                fmt::format("--data is required: the task '{}' reads {} (see a2sf eval --help)", task.name, task.file));
  }
}

// What was tuned on a task's own items says nothing about others.
void refuse_tuned_tasks(const Flags& flags, const std::vector<EvalTaskInfo>& tasks,
                        const std::vector<PolicySpec>& specs) {
  if (std::none_of(specs.begin(), specs.end(), is_tuned)) return;
  for (const EvalTaskInfo& task : tasks) {
    if (task.file.empty()) continue;
    const std::string file = fmt::format("{}/{}", flags.tasks.data, task.file);
    refuse_tuned_text(specs, text_hash(read_file(file)), file);
  }
}

// Of the files that the policy was read from: a result is of what was in them.
std::string hash_of_files(const PolicySpec& spec) {
  const Json json = policy_json(spec);
  std::string hash;
  for (const char* part : {"profile", "budget_table", "token_classes", "hook_file"}) {
    if (json.contains(part) && !json[part].is_null()) hash += json[part]["hash"].get<std::string>();
  }
  return hash;
}

EvaluationOptions read_options(const Flags& flags, const std::vector<PolicySpec>& specs) {
  EvaluationOptions options;
  options.data = flags.tasks.data;
  options.tasks = read_eval_tasks(flags.tasks);
  options.shots = read_numbers("--shots", flags.shots, 0);
  options.limit = flags.tasks.limit == 0 && flags.masks ? kMaskItems : flags.tasks.limit;
  options.rules = rules_of(flags.tasks);
  options.kv_type = kv_type_of(flags.cache);
  for (const PolicySpec& spec : specs) options.policies.push_back({spec, budget_json(spec), hash_of_files(spec)});
  return options;
}

// What the results of items follow from, beside the task, the shots and the policy.
Json origin_of(const Model& model, const Flags& flags) {
  return {{"a2sf_results", kResultsVersion},      {"model_hash", model.info().hash}, {"rules", flags.tasks.rules},
          {"kv_type", flags.cache.kv_type},       {"device", flags.model.device},    {"isa", model.isa()},
          {"repack", flags.model.repack == "on"}, {"data", flags.tasks.data}};
}

Json measure_json(const std::vector<Measure>& measures, const char* suffix) {
  Json json = Json::object();
  for (const Measure& measure : measures) {
    json[measure.name + suffix] = measure.value.mean;
    json[measure.name + suffix + "_stderr"] = measure.value.standard_error;
  }
  return json;
}

Json row_json(const EvaluationRow& row, const PolicySpec& spec) {
  Json json = {{"task", row.task}, {"shots", row.shots}};
  json.update(policy_json(spec));
  json["items"] = row.items;
  if (row.kind == TaskKind::choices) json["acc_norm"] = json["acc_norm_stderr"] = nullptr;
  json.update(measure_json(row.measures, ""));
  if (const Estimate* loss = row.find("loss")) json["perplexity"] = std::exp(loss->mean);
  return json;
}

Json pair_json(const EvaluationPair& pair, const std::vector<PolicySpec>& specs) {
  Json json = {{"task", pair.task},
               {"shots", pair.shots},
               {"budget", budget_json(specs[pair.a])},
               {"a", to_string(specs[pair.a])},
               {"b", to_string(specs[pair.b])},
               {"items", pair.items}};
  json.update(measure_json(pair.differences, "_difference"));
  if (pair.mcnemar_p) json["mcnemar_p"] = *pair.mcnemar_p;
  return json;
}

// The beginning of what is written.
Json document_of(const char* command, const Model& model, const Flags& flags, const EvaluationOptions& options) {
  Json document = new_document(command, model, flags.model);
  document["data"] = flags.tasks.data;
  document["rules"] = flags.tasks.rules;
  document["limit"] = options.limit;
  document["kv_type"] = flags.cache.kv_type;
  return document;
}

Evaluation compute(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                   const EvaluationOptions& options, ItemResults& results) {
  Progress progress("eval");
  return need(evaluate(model, tokenizer, options, results,
                       [&](std::size_t done, std::size_t total) { return progress.update(done, total); }));
}

void run(const Flags& flags) {
  auto specs = flags.masks ? read_mask_policies(flags.policies, flags.cache, kBudgets)
                           : read_policy_list(flags.policies, flags.cache, kBudgets);
  const auto tasks = read_eval_tasks(flags.tasks);
  require_data(flags, tasks);
  const Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  const auto model = load_model(flags.model);
  use_auto_profile(flags.cache, model->info(), {}, specs, flags.output.json);
  refuse_tuned_tasks(flags, tasks, specs);
  const EvaluationOptions options = read_options(flags, specs);
  std::error_code error;
  std::filesystem::create_directories(flags.folder, error);
  if (error) fail_with(kFailed, fmt::format("cannot make the folder {}: {}", flags.folder, error.message()));
  if (flags.masks) {
    Delivery delivery({.json = flags.output.json, .file = flags.folder + "/masks.json"});
    return run_masks(model, tokenizer, options, document_of("eval --masks", *model, flags, options), delivery);
  }
  ItemResults results = need(ItemResults::open(flags.folder + "/items.jsonl", origin_of(*model, flags)));
  const Evaluation evaluation = compute(model, tokenizer, options, results);
  Json document = document_of("eval", *model, flags, options);
  document["rows"] = Json::array();
  for (const EvaluationRow& row : evaluation.rows) document["rows"].push_back(row_json(row, specs[row.policy]));
  document["pairs"] = Json::array();
  for (const EvaluationPair& pair : evaluation.pairs) document["pairs"].push_back(pair_json(pair, specs));
  Delivery({.json = flags.output.json, .file = flags.folder + "/summary.json"})
      .deliver(document, eval_tables(evaluation, specs));
}

}  // namespace

void add_eval(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      add_command(app, "eval",
                  "Tasks under several policies and budgets: multiple choice, answers in words, the perplexity of a "
                  "text. An interrupted run goes on where it stopped",
                  "a2sf eval -m model.gguf --data evaldata --tasks arc_easy,piqa --shots 0,1 --policies "
                  "full,h2o,a2sf --budget 0.2,0.4 --limit 500 -o results");
  add_model_flags(command, &flags->model);
  add_task_flags(
      command, &flags->tasks,
      "Folder of the tasks' folders: JSON lines, as published on Hugging Face; passkey-* and needles-* make their "
      "own items and need none",
      fmt::format("; answered in words: {}; the perplexity of a text, in windows of 2048 tokens: {}",
                  task_names(TaskKind::answers), task_names(TaskKind::windows)));
  command->add_option("--shots", flags->shots, "Solved examples before each item; several numbers: each in turn")
      ->type_name("N,...")
      ->capture_default_str();
  command->add_flag("--masks", flags->masks,
                    "Score nothing: compare the tokens that each policy keeps with those that the row attends to most, "
                    "on the first 20 items of each task (--limit), and write masks.json");
  add_policy_list_flags(command, &flags->policies, kBudgets);
  add_cache_flags(command, &flags->cache, false);
  command
      ->add_option(
          "-o,--output", flags->folder,
          "Folder of the results: items.jsonl, which grows item by item, and summary.json; with --masks: masks.json")
      ->type_name("DIR")
      ->required()
      ->group(kLastHeading);
  add_json_flag(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
