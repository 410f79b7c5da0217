#include "tune/tune.h"

#include "auto_profile.h"
#include "commands.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "tables.h"
#include "task_list.h"
#include "tune/choose_policy.h"
#include "tune/task_tuning.h"
#include "tune_classes.h"
#include "tune_hooks.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <map>
#include <memory>
#include <utility>

namespace a2sf::app {
namespace {

constexpr const char *kMeans = "8,16,32,64,128,256,512,1024", *kRatios = "0.2,0.4,0.6";  // of a text, of tasks

const std::map<std::string, DamageMeasure> kMeasures = {
    {"output", DamageMeasure::output}, {"kl", DamageMeasure::divergence}, {"mass", DamageMeasure::lost_mass}};
const std::map<std::string, MemoryGroups> kGroups = {
    {"one", MemoryGroups::one}, {"layer", MemoryGroups::per_layer}, {"head", MemoryGroups::per_head}};
const std::map<std::string, TextCost> kTextCosts = {
    {"loss", TextCost::log_loss}, {"kl", TextCost::divergence}, {"mask", TextCost::mask_distance}};
const std::map<std::string, TaskCost> kTaskCosts = {{"loss", TaskCost::log_loss}, {"accuracy", TaskCost::errors}};

struct Flags {
  ModelFlags model;
  TextFlags text;
  TaskFlags tasks;
  OutputFlags output;
  HookTuneFlags hooks;
  std::string policy = "a2sf", budgets, file, measure = "output", alpha, cost, profile = "none", classes;
  std::size_t longest = 2048, windows = 2, calls = 0, shots = 0, long_term = 0;
  double global_share = 1;
};

// A row of one of the tables above.
template <class Value>
Value choice_of(const char* option, const std::string& word, const std::map<std::string, Value>& choices) {
  const auto found = choices.find(word);
  if (found != choices.end()) return found->second;
  std::string words;
  for (const auto& [each, value] : choices) words += fmt::format("{}{}", words.empty() ? "" : ", ", each);
  fail_with(kWrongUsage, fmt::format("{} '{}' is none of {}", option, harmless(word), words));
}

std::vector<PolicySpec> read_tuned_policies(const Flags& flags) {
  std::vector<PolicySpec> policies;
  for (const std::string& text : split_list(flags.policy)) {
    policies.push_back(read_policy(text, {}));
    if (std::holds_alternative<Accumulate>(policies.back().score)) continue;
    fail_with(kWrongUsage,
              fmt::format("--policy {}: only policies that score tokens can be tuned (a2sf, h2o, tova, ...)",
                          harmless(text)));
  }
  return policies;
}

// What a profile says of the policy that it was made for: its options without the budget, and the layers that are
// bounded; nothing of a plain one.
std::string options_of(PolicySpec policy, const std::vector<LayerRange>& bounded) {
  const PolicySpec plain = need(parse_policy(policy.name));
  policy.budget = {plain.budget.budget, bounded};
  if (auto* accumulate = std::get_if<Accumulate>(&policy.score)) accumulate->classes = nullptr;  // in a file of its own
  if (policy == plain) return "";
  const std::string text = to_string(policy), budget = to_string(plain).substr(plain.name.size());
  return std::string(text).erase(text.find(budget), budget.size());
}

std::vector<std::int64_t> read_means(const std::string& text) {
  std::vector<std::int64_t> means;
  for (const std::string& item : split_list(text)) {
    if (item.find_first_of(".%") != std::string::npos)
      fail_with(kWrongUsage, fmt::format("--budget: {} is a ratio; a text to tune on has no length of its own", item));
    means.push_back(static_cast<std::int64_t>(read_number("--budget", item, 1)));
  }
  std::sort(means.begin(), means.end());
  means.erase(std::unique(means.begin(), means.end()), means.end());
  return means;
}

TuneOptions read_text_options(const Flags& flags) {
  TuneOptions options;
  options.means = read_means(flags.budgets.empty() ? kMeans : flags.budgets);
  options.longest_window = flags.longest;
  options.windows = flags.windows;
  options.measure = choice_of("--measure", flags.measure, kMeasures);
  if (!flags.alpha.empty()) options.memories = {choice_of("--alpha", flags.alpha, kGroups), flags.calls};
  options.memory_cost = choice_of("--cost", flags.cost.empty() ? "kl" : flags.cost, kTextCosts);
  options.global_share = flags.global_share;
  options.long_term = flags.long_term;
  return options;
}

Profile make_profile(const ModelInfo& model, const PolicySpec& policy, TunedBudgets budgets,
                     std::vector<TunedText> texts) {
  return {.tables = std::move(budgets.tables),
          .policy = options_of(policy, budgets.bounded),
          .model = model.name,
          .model_hash = model.hash,
          .texts = std::move(texts),
          .file = {}};
}

Profile tune_on_text(const Flags& flags, const std::vector<PolicySpec>& policies,
                     const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer) {
  const TuneOptions options = read_text_options(flags);
  const auto [tokens, text_hash] = read_tokens(flags.text, tokenizer);
  warn_past_context(model->info(), flags.longest);
  Progress progress("tune");
  auto chosen = need(choose_policy(model, tokens, policies, options,
                                   [&](std::size_t done, std::size_t total) { return progress.update(done, total); }));
  return make_profile(model->info(), policies[chosen.policy], std::move(chosen.budgets),
                      {tuned_text(flags.text.file, text_hash)});
}

// The policy at each budget, with what the profile of the shares was made for: the layers that it bounds, for instance.
std::vector<PolicySpec> read_task_policies(const Flags& flags, const std::vector<PolicySpec>& policies,
                                           const std::shared_ptr<const Profile>& shares) {
  if (policies.size() > 1) fail_with(kWrongUsage, "--policy: on tasks it is one policy");
  std::vector<PolicySpec> specs;
  for (const std::string& budget : split_list(flags.budgets.empty() ? kRatios : flags.budgets)) {
    PolicySpec spec = policies.front();
    need(set_option(spec, "budget", budget), kWrongUsage);
    if (shares != nullptr) need(share_by(spec, shares));
    specs.push_back(std::move(spec));
  }
  return specs;
}

Profile tune_on_tasks(const Flags& flags, const std::vector<PolicySpec>& policies,
                      const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer) {
  TaskTuning tuning{.items = {}, .specs = {}, .shares = nullptr, .search = {}};
  tuning.rules = rules_of(flags.tasks);
  tuning.search = {choice_of("--alpha", flags.alpha.empty() ? "one" : flags.alpha, kGroups), flags.calls};
  tuning.cost = choice_of("--cost", flags.cost.empty() ? "loss" : flags.cost, kTaskCosts);
  if (flags.profile != "none") tuning.shares = std::make_shared<const Profile>(need(read_profile(flags.profile)));
  tuning.specs = read_task_policies(flags, policies, tuning.shares);
  std::vector<TunedText> texts = tuning.shares == nullptr ? std::vector<TunedText>() : tuning.shares->texts;
  for (const TaskInfo& task : read_choice_tasks(flags.tasks)) {
    auto items =
        need(read_items(flags.tasks.data, task,
                        {.shots = flags.shots, .limit = flags.tasks.limit, .rules = tuning.rules, .tuning = true}));
    std::move(items.begin(), items.end(), std::back_inserter(tuning.items));
    const std::string file = fmt::format("{}/{}", flags.tasks.data, task.shot_file);
    texts.push_back({std::string(task.shot_file), text_hash(read_file(file))});
  }
  Progress progress("tune");
  auto tables = need(tune_memories(model, tokenizer, tuning,
                                   [&](std::size_t done, std::size_t total) { return progress.update(done, total); }));
  const PolicySpec& spec = tuning.specs.front();
  return make_profile(model->info(), spec, {std::move(tables), spec.budget.layers}, std::move(texts));
}

// The least, the middle and the largest of a table's numbers, each as `text` has it.
template <class Text>
std::vector<std::string> spread_of(const std::vector<std::vector<double>>& table, const Text& text) {
  std::vector<double> values;
  for (const auto& layer : table) values.insert(values.end(), layer.begin(), layer.end());
  std::sort(values.begin(), values.end());
  return {text(values.front()), text(values[values.size() / 2]), text(values.back())};
}

std::string count_of_local_heads(const ShareTable& table) {
  std::ptrdiff_t count = 0, heads = 0;
  for (const auto& layer : table.local) {
    count += std::count(layer.begin(), layer.end(), 1);
    heads += std::ssize(layer);
  }
  return fmt::format("{} of {}", count, heads);
}

// For people: the heads' budgets at each mean, how many are local, and how long they remember.
std::string table_of(const Profile& profile) {
  const bool has_memories = !profile.tables.front().memories.empty();
  const bool is_hybrid = !profile.tables.front().local.empty();
  std::vector<std::vector<std::string>> rows = {{"mean budget", "least", "median", "largest"}};
  if (is_hybrid) rows.front().emplace_back("local heads");
  if (has_memories) rows.front().insert(rows.front().end(), {"least memory", "median", "largest"});
  for (const ShareTable& table : profile.tables) {
    const auto budget = [&](double share) {
      if (table.mean == 0) return fmt::format("{:.0f} %", 100 * share);
      return with_commas(static_cast<std::uint64_t>(std::llround(share * static_cast<double>(table.mean))));
    };
    auto& row = rows.emplace_back();
    row.push_back(table.mean == 0 ? "any" : with_commas(static_cast<std::uint64_t>(table.mean)));
    for (std::string& cell : spread_of(table.shares, budget)) row.push_back(std::move(cell));
    if (is_hybrid) row.push_back(count_of_local_heads(table));
    if (!has_memories) continue;
    const auto memory = [](double budgets) { return fmt::format("{:.2f}", budgets); };
    for (std::string& cell : spread_of(table.memories, memory)) row.push_back(std::move(cell));
  }
  return aligned_table(rows) + (has_memories ? "A memory is in budgets: alpha = 1 - 1/(memory * budget)\n" : "");
}

// The policy that the profile brings with it, if it is not the plain one.
std::string made_for(const Profile& profile) {
  return profile.policy.empty() ? "" : fmt::format("for {}\n", profile.policy);
}

Json settings_json(const Flags& flags) {
  if (!flags.text.file.empty()) {
    return {{"text", flags.text.file},  {"ctx", flags.longest},         {"windows", flags.windows},
            {"measure", flags.measure}, {"hybrid", flags.global_share}, {"long_term", flags.long_term}};
  }
  return {{"data", flags.tasks.data},
          {"tasks", flags.tasks.tasks},
          {"shots", flags.shots},
          {"limit", flags.tasks.limit},
          {"rules", flags.tasks.rules}};
}

void make_profile_file(const Flags& flags) {
  const auto policies = read_tuned_policies(flags);  // what is wrong with them is said before a model is loaded
  const Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  const auto model = load_model(flags.model);
  const std::string target = flags.file.empty() ? profile_beside(flags.model.model) : flags.file;
  OutputFile file(target);
  const auto start = std::chrono::steady_clock::now();
  const Profile profile = (flags.text.file.empty() ? tune_on_tasks : tune_on_text)(flags, policies, model, tokenizer);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  file.write(to_json(profile));
  file.commit();
  if (target == "-") return;
  Json document = new_document("tune", *model, flags.model);
  document.update(settings_json(flags));
  document["policy"] = flags.policy;
  document["alpha"] = flags.alpha;
  document["cost"] = flags.cost;
  document["seconds"] = seconds;
  document["file"] = target;
  document["profile"] = Json::parse(to_json(profile));
  Delivery({.json = flags.output.json, .file = ""})
      .deliver(document, table_of(profile) + made_for(profile) +
                             fmt::format("{} written in {:.0f} s\n", harmless(target), seconds));
}

// The options that all modes have.
HookTuneFlags hook_flags(const Flags& flags) {
  HookTuneFlags hooks = flags.hooks;
  hooks.model = flags.model;
  hooks.output = flags.output;
  hooks.budget = flags.budgets;
  hooks.file = flags.file;
  hooks.window = flags.longest;
  hooks.windows = flags.windows;
  hooks.calls = flags.calls;
  hooks.tokens = flags.text.tokens;
  return hooks;
}

// Options of a profile's making, where something else is made: nothing is ignored in silence.
void refuse_profile_options(const Flags& flags) {
  const Flags standard{};
  const auto refuse = [](bool given, const char* option) {
    if (given) fail_with(kWrongUsage, fmt::format("{} does nothing with --classes, --learn and --multi", option));
  };
  refuse(flags.measure != standard.measure, "--measure");
  refuse(flags.alpha != standard.alpha, "--alpha");
  refuse(flags.cost != standard.cost, "--cost");
  refuse(flags.profile != standard.profile, "--profile");
  refuse(flags.classes.empty() && flags.policy != standard.policy, "--policy");
  refuse(!flags.classes.empty() && flags.text.tokens > 0, "--tokens");
}

void run(const Flags& flags) {
  const std::string* const modes[] = {&flags.text.file, &flags.tasks.data, &flags.classes, &flags.hooks.learn,
                                      &flags.hooks.multi};
  if (std::count_if(std::begin(modes), std::end(modes), [](const std::string* mode) { return !mode->empty(); }) != 1) {
    fail_with(kWrongUsage,
              "say what to tune on: a text (-f, --classes, --learn or --multi FILE) or the examples of tasks (--data "
              "DIR)");
  }
  if (flags.text.file.empty() && (flags.global_share < 1 || flags.long_term > 0))
    fail_with(kWrongUsage, "--hybrid and --long-term need a text to measure damage on (-f FILE)");
  if (!flags.text.file.empty() || !flags.tasks.data.empty()) return make_profile_file(flags);
  refuse_profile_options(flags);
  if (!flags.hooks.learn.empty()) return tune_learned(hook_flags(flags));
  if (!flags.hooks.multi.empty()) return tune_multi_weights(hook_flags(flags));
  tune_classes({flags.model, flags.output, read_tuned_policies(flags), flags.budgets, flags.classes, flags.file,
                flags.longest, flags.windows, flags.calls});
}

void add_text_mode(CLI::App* command, Flags* flags) {
  const Heading heading(command, "On a text");
  add_text_flags(command, &flags->text);
  command->get_option("--file")->required(false);
  command->add_option("-c,--ctx", flags->longest, "Tokens of the longest windows of the text")
      ->type_name("N")
      ->check(CLI::Range(64, 1 << 20))
      ->capture_default_str();
  command->add_option("--windows", flags->windows, "How many of them")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      ->add_option("--measure", flags->measure,
                   "What a budget costs a head: output, the error of its output; kl, that of the predictions where it "
                   "alone is bounded (slow); mass, the attention to what it evicted")
      ->type_name("M")
      ->capture_default_str();
  command
      ->add_option("--hybrid", flags->global_share,
                   "The part of the heads that choose tokens by score, 0 to 1: those that lose most without; the "
                   "others keep the first tokens and the newest")
      ->type_name("SHARE")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--long-term", flags->long_term,
                   "So many layers keep everything: those that a small budget hurts most; the mean budget is that of "
                   "the others")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
}

void add_task_mode(CLI::App* command, Flags* flags) {
  const Heading heading(command, "On tasks");
  add_task_flags(command, &flags->tasks, "Tune on tasks' solved examples: the folder of their folders, JSON lines");
  command->add_option("--shots", flags->shots, "Other solved examples before each item")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--profile", flags->profile, "Its shares of the budget hold; none: all heads have the same")
      ->type_name("FILE")
      ->capture_default_str();
}

}  // namespace

void add_tune(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(
      app, "tune",
      "Find how the layers and heads of a model share a budget best (on a text), and how long they should remember (on "
      "a text or on tasks), and write it as a profile of the model. Take texts and tasks like those that it will see; "
      "what is found on them must be scored on others",
      "a2sf tune -m model.gguf -f book.txt");
  add_model_flags(command, &flags->model);
  add_text_mode(command, flags.get());
  add_class_mode(command, &flags->classes);
  add_task_mode(command, flags.get());
  add_hook_tune_mode(command, &flags->hooks);
  command
      ->add_option("--budget", flags->budgets,
                   "On a text: mean budgets to make a table for each; others take the nearest. On tasks: counts or "
                   "ratios that the result should serve. --classes, --learn and --multi: the one count to tune at")
      ->type_name("B,...")
      ->default_str(fmt::format("{}; {}; {}", kMeans, kRatios, kClassBudget));
  command
      ->add_option("--policy", flags->policy,
                   "By which tokens go, with options if wanted; on a text, of several the one whose predictions come "
                   "nearest to the full cache's: a2sf,a2sf:power=1.5")
      ->type_name("P,...")
      ->capture_default_str();
  command
      ->add_option("--alpha", flags->alpha,
                   "Find forgetting factors too: one for all heads, one per layer or one per head, each as a memory in "
                   "budgets")
      ->type_name("GROUPS")
      ->default_str("on tasks: one");
  command
      ->add_option("--cost", flags->cost,
                   "What a good alpha makes small. On a text: kl, to the full cache; loss, of the text; mask, the "
                   "distance to the ideal mask. On tasks: loss, of the right choice; accuracy, the wrong answers")
      ->type_name("C")
      ->default_str("kl; loss");
  command
      ->add_option("--calls", flags->calls,
                   "How often alphas, factors of classes or weights of --multi are tried, at most")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20))
      ->default_str("20, or 6 per group; 60; 40");
  command->add_option("-o,--output", flags->file, "The profile, the classes or what is learned; -: standard output")
      ->type_name("FILE")
      ->default_str("MODEL.a2sf.json; MODEL.classes.json; MODEL.learned.json")
      ->group(kLastHeading);
  add_json_flag(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
