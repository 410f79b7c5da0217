#include "eval/compare.h"
#include "auto_profile.h"
#include "commands.h"
#include "idle_options.h"
#include "options.h"
#include "outcome.h"
#include "policy_list.h"
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
  PolicyListFlags policies;
  std::size_t prompt = 0;
};

std::vector<PolicySpec> read_specs(const Flags& flags) {
  auto specs = read_policy_list(flags.policies, flags.cache, kBudgets);
  for (const PolicySpec& spec : specs) {
    if (spec.evicts_at_prompt_end() && flags.prompt == 0)
      fail_with(kWrongUsage, "block=prompt needs --prompt N: how many of the first tokens are the prompt");
  }
  return specs;
}

Json row_json(const ComparisonRow& row) {
  Json json = policy_json(row.spec);
  json.update(Json{{"perplexity", row.perplexity},
                   {"kl_to_full", row.kl_to_full},
                   {"top1_agreement", row.top1_agreement},
                   {"kv_bytes", row.kv_bytes},
                   {"cold_bytes", row.cold_bytes},
                   {"prompt_tokens_per_s", row.prompt_tokens_per_s},
                   {"decode_tokens_per_s", row.decode_tokens_per_s}});
  return json;
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
  for (const auto& row : report.rows) width = std::max(width, policy_cell(row.spec).size());
  std::string text = fmt::format("{:<{}}{:>9}{:>13}{:>13}{:>13}    {:<20}{:>11}{:>13}\n", "policy", width, "budget",
                                 "perplexity", "KL to full", "same top-1", "KV cache", "prompt", "decode");
  for (const auto& row : report.rows) {
    const bool is_full = row.spec.keeps_all();
    text += fmt::format("{:<{}}{:>9}{:>13.2f}{:>13}{:>13} {}{:>11}{:>13}\n", policy_cell(row.spec), width,
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
  add_policy_list_flags(command, &flags->policies, kBudgets);
  command->add_option("--prompt", flags->prompt, "The first N tokens are a prompt: read, but not scored")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 30));
  add_cache_flags(command, &flags->cache, false);
  add_json_flag(command, &flags->output);
  add_output_file(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
