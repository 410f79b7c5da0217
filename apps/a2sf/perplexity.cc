#include "eval/perplexity.h"

#include "auto_profile.h"
#include "commands.h"
#include "idle_options.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "tables.h"

#include <fmt/format.h>

#include <memory>

namespace a2sf::app {
namespace {

struct Flags {
  ModelFlags model;
  TextFlags text;
  CacheFlags cache;
  OutputFlags output;
  std::string score = "half";
  std::size_t window = 512, prompt = 0;
};

PerplexityOptions read_options(const Flags& flags) {
  PerplexityOptions options;
  options.policy = spec_of(flags.cache);
  options.kv_type = kv_type_of(flags.cache);
  options.window = flags.window;
  options.score = flags.score == "all" ? ScoredPart::all : ScoredPart::half;
  options.prompt = flags.prompt;
  if (options.policy.evicts_at_prompt_end() && options.prompt == 0) {
    fail_with(kWrongUsage, "block=prompt needs --prompt N: how many tokens of each window are the prompt");
  }
  if (options.prompt >= options.window) fail_with(kWrongUsage, "--prompt must be smaller than --ctx");
  return options;
}

// llama-perplexity starts every window with the BOS token where the file asks for one.
void use_bos(const Tokenizer& tokenizer, const std::vector<Token>& tokens, PerplexityOptions& options) {
  if (tokenizer.adds_bos() && !tokens.empty()) options.first_token = tokens.front();
}

Json document_of(const Model& model, const Flags& flags, const PolicySpec& spec, std::size_t tokens,
                 const PerplexityReport& report) {
  Json document = new_document("perplexity", model, flags.model);
  document["text"] = flags.text.file;
  document["tokens"] = tokens;
  document["ctx"] = flags.window;
  document["score"] = flags.score;
  document["prompt"] = flags.prompt;
  document["kv_type"] = flags.cache.kv_type;
  document.update(policy_json(spec));
  document["perplexity"] = report.perplexity;
  document["perplexity_standard_error"] = report.standard_error;
  document["windows"] = report.windows;
  document["tokens_scored"] = report.tokens_scored;
  document["kv_bytes"] = report.kv_bytes;
  document["cold_bytes"] = report.cold_bytes;
  document["tokens_per_s"] = report.tokens_per_s;
  return document;
}

void run(const Flags& flags) {
  PerplexityOptions options = read_options(flags);
  Delivery delivery(flags.output);
  const Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  const auto [tokens, text_hash] = read_tokens(flags.text, tokenizer);
  use_bos(tokenizer, tokens, options);
  const auto model = load_model(flags.model);
  warn_past_context(model->info(), flags.window);
  const Sequence sequence{text_hash, static_cast<std::int64_t>(flags.window)};
  use_auto_profile(flags.cache, model->info(), sequence, {&options.policy, 1}, flags.output.json);
  refuse_tuned_text({&options.policy, 1}, text_hash, flags.text.file);
  warn_of_budgets_that_hold_all({&options.policy, 1}, model->info(), flags.window, "a window");
  PerplexityReport report;
  {
    Progress progress("perplexity");
    report = need(perplexity(model, tokens, options,
                             [&](std::size_t done, std::size_t total) { return progress.update(done, total); }));
  }
  const std::string line =
      fmt::format("{}: perplexity {:.4f} +/- {:.4f} ({} predictions in {} of {} tokens), KV cache {}, {}\n",
                  harmless(to_string(options.policy)), report.perplexity, report.standard_error,
                  with_commas(report.tokens_scored), counted(report.windows, "window"), flags.window,
                  bytes_text(static_cast<double>(report.kv_bytes)), rate_text(report.tokens_per_s));
  delivery.deliver(document_of(*model, flags, options.policy, tokens.size(), report), line);
}

}  // namespace

void add_perplexity(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(app, "perplexity", "Perplexity over windows of a text, each with a fresh cache",
                                  "a2sf perplexity -m model.gguf -f text.txt --ctx 1024 --policy a2sf --budget 256");
  add_model_flags(command, &flags->model);
  add_text_flags(command, &flags->text);
  command->add_option("-c,--ctx", flags->window, "Tokens of a window")
      ->type_name("N")
      ->check(CLI::Range(3, 1 << 30))
      ->capture_default_str();
  command
      ->add_option("--score", flags->score, "half: the second half of each window, as llama-perplexity; all: all of it")
      ->type_name("half|all")
      ->check(CLI::IsMember({"half", "all"}))
      ->capture_default_str();
  command->add_option("--prompt", flags->prompt, "The first N tokens of each window are a prompt: read, but not scored")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 30));
  add_cache_flags(command, &flags->cache);
  add_json_flag(command, &flags->output);
  add_output_file(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
