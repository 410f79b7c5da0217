#include "eval/compare.h"
#include "auto_profile.h"
#include "commands.h"
#include "idle_options.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

namespace a2sf::app {
namespace {

constexpr const char* kBudgets = "1024";  // where none are given

struct Flags {
  ModelFlags model;
  TextFlags text;
  CacheFlags cache;
  OutputFlags output;
  std::string policies = "full,local,h2o,a2sf", budgets;
  std::size_t prompt = 0;
};

// Every policy at every budget; one that names its own budget, and full, once.
std::vector<PolicySpec> read_specs(const Flags& flags) {
  std::vector<PolicySpec> specs;
  std::vector<TypedPolicy> typed;
  for (const std::string& policy : split_list(flags.policies)) {
    for (const std::string& budget : split_list(flags.budgets.empty() ? kBudgets : flags.budgets)) {
      CacheFlags cache = flags.cache;
      cache.budget = budget;
      if (budget.empty()) fail_with(kWrongUsage, "--budget: an item of the list is empty");
      specs.push_back(read_policy(policy, cache));
      typed.push_back({policy, specs.back()});
      if (specs.back().evicts_at_prompt_end() && flags.prompt == 0) {
        fail_with(kWrongUsage, "block=prompt needs --prompt N: how many of the first tokens are the prompt");
      }
      if (specs.back().keeps_all() || policy.find(":budget=") != std::string::npos) break;
    }
  }
  CacheFlags given = flags.cache;
  given.budget = flags.budgets;
  warn_of_idle_options(given, typed);
  return specs;
}

Json row_json(const ComparisonRow& row) {
  Json json = policy_json(row.spec);
  json.update(Json{{"perplexity", row.perplexity},
                   {"kl_to_full", row.kl_to_full},
                   {"top1_agreement", row.top1_agreement},
                   {"kv_bytes", row.kv_bytes},
                   {"prompt_tokens_per_s", row.prompt_tokens_per_s},
                   {"decode_tokens_per_s", row.decode_tokens_per_s}});
  return json;
}

std::string budget_cell(const PolicySpec& spec) {
  if (spec.keeps_all()) return "-";
  if (spec.budget_table() != nullptr) return "table";
  const Json budget = budget_json(spec);
  if (budget.is_string()) return budget;
  if (budget.is_number_float()) return fmt::format("{:g} %", 100 * budget.get<double>());
  return with_commas(budget.get<std::uint64_t>());
}

// The spec without its budget: the policy's name, and every option that is not its default.
std::string policy_cell(const ComparisonRow& row) {
  std::string cell = harmless(to_string(row.spec));
  if (row.spec.budget_table() != nullptr) return cell;  // its file tells it from another table
  const std::size_t begin = cell.find(":budget=");
  if (begin != std::string::npos) cell.erase(begin, cell.find(':', begin + 1) - begin);
  return cell;
}

std::string memory_cell(const ComparisonRow& row, double full_bytes) {
  const double mebibytes = static_cast<double>(row.kv_bytes) / (1 << 20);
  const double percent = 100 * static_cast<double>(row.kv_bytes) / full_bytes;
  const bool is_full = row.spec.keeps_all();
  return fmt::format("{:7.1f} MiB", mebibytes) +
         (is_full ? std::string(9, ' ') : fmt::format(" {:>8}", fmt::format("({:.1f} %)", percent)));
}

std::string table_of(const ComparisonReport& report) {
  std::size_t width = 9;
  for (const auto& row : report.rows) width = std::max(width, policy_cell(row).size());
  std::string text = fmt::format("{:<{}}{:>9}{:>13}{:>13}{:>13}    {:<20}{:>11}{:>13}\n", "policy", width, "budget",
                                 "perplexity", "KL to full", "same top-1", "KV cache", "prompt", "decode");
  for (const auto& row : report.rows) {
    const bool is_full = row.spec.keeps_all();
    text += fmt::format("{:<{}}{:>9}{:>13.2f}{:>13}{:>13} {}{:>11}{:>13}\n", policy_cell(row), width,
                        budget_cell(row.spec), row.perplexity, is_full ? "-" : fmt::format("{:.2f}", row.kl_to_full),
                        is_full ? "-" : fmt::format("{:.0f} %", 100 * row.top1_agreement),
                        memory_cell(row, static_cast<double>(report.rows.front().kv_bytes)),
                        rate_text(row.prompt_tokens_per_s), rate_text(row.decode_tokens_per_s));
  }
  return text;
}

std::string heading(const Model& model, const Flags& flags, std::size_t tokens) {
  return fmt::format("{}, {} tokens of {}, {}, {}\n", model_title(model.info()), with_commas(tokens),
                     harmless(std::filesystem::path(text_name(flags.text.file)).filename().string()),
                     counted(static_cast<std::size_t>(model.threads()), "thread"), model.isa());
}

void run(const Flags& flags) {
  auto specs = read_specs(flags);
  Delivery delivery(flags.output);
  const Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  const auto [tokens, text_hash] = read_tokens(flags.text, tokenizer);
  const auto model = load_model(flags.model);
  const CompareOptions options{.kv_type = kv_type_of(flags.cache), .prompt = flags.prompt};
  use_auto_profile(flags.cache, model->info(), {text_hash, std::ssize(tokens)}, specs, flags.output.json);
  refuse_tuned_text(specs, text_hash, flags.text.file);
  need(check_comparison(*model, tokens, specs, options));
  warn_past_context(model->info(), tokens.size());
  warn_of_budgets_that_hold_all(specs, model->info(), tokens.size(), "the text");
  ComparisonReport report;
  {
    Progress progress("compare");
    report = need(compare(model, tokens, specs, options,
                          [&](std::size_t done, std::size_t total) { return progress.update(done, total); }));
  }
  Json document = new_document("compare", *model, flags.model);
  document["text"] = flags.text.file;
  document["tokens"] = tokens.size();
  document["tokens_scored"] = report.tokens_scored;
  document["prompt"] = flags.prompt;
  document["kv_type"] = flags.cache.kv_type;
  document["rows"] = Json::array();
  for (const auto& row : report.rows) document["rows"].push_back(row_json(row));
  delivery.deliver(document, heading(*model, flags, tokens.size()) + table_of(report));
}

}  // namespace

void add_compare(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      add_command(app, "compare", "Policies side by side on a text: quality, memory and speed",
                  "a2sf compare -m model.gguf -f text.txt --policies full,local,h2o,a2sf --budget 128,256 "
                  "--tokens 3000");
  add_model_flags(command, &flags->model);
  add_text_flags(command, &flags->text);
  {
    const Heading heading(command, kCacheHeading);
    command
        ->add_option("--policies", flags->policies,
                     "Policies, separated by commas, with options if wanted: a2sf:alpha=0.9 (see: a2sf policies)")
        ->type_name("P,...")
        ->capture_default_str();
    command
        ->add_option("--budget", flags->budgets,
                     "Tokens kept per layer and KV head, separated by commas: counts, ratios of the text (0.2 or 20%), "
                     "all, or @FILE, a JSON table by layer and KV head: {\"budgets\": [[64, 32], [16, \"all\"]]}")
        ->type_name("B,...")
        ->default_str(kBudgets)
        ->check([](const std::string& text) { return text.empty() ? "the value is empty" : ""; });
  }
  command->add_option("--prompt", flags->prompt, "The first N tokens are a prompt: read, but not scored")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 30));
  add_cache_flags(command, &flags->cache, false);
  add_json_flag(command, &flags->output);
  add_output_file(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
