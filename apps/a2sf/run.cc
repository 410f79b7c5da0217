#include "commands.h"
#include "engine/generate.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "tables.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>

namespace a2sf::app {
namespace {

struct Flags {
  ModelFlags model;
  CacheFlags cache;
  SamplingFlags sampling;
  OutputFlags output;
  std::string prompt, file;
  std::size_t tokens = 128;
};

std::vector<Token> read_prompt(const Flags& flags, bool from_file, const Tokenizer& tokenizer) {
  if (from_file) return read_tokens({.file = flags.file, .tokens = 0}, tokenizer);
  if (flags.prompt.empty()) fail_with(kFailed, "the prompt is empty");
  return need(tokenizer.encode(flags.prompt, true, false));
}

double read(Session& session, const std::vector<Token>& prompt, bool whole_prompt) {
  Progress progress("prompt");
  const auto start = std::chrono::steady_clock::now();
  need(session.feed(prompt, WantLogits::last, whole_prompt,
                    [&](std::size_t done) { return progress.update(done, prompt.size()); }));
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

const char* name_of_reason(StopReason reason) {
  switch (reason) {
    case StopReason::length:
      return "length";
    case StopReason::end_of_generation:
      return "end_of_generation";
    case StopReason::stop_string:
      return "stop_string";
  }
  return "";
}

Json document_of(const Model& model, const Flags& flags, const PolicySpec& spec, const Session& session,
                 const std::vector<Token>& prompt, double prompt_seconds, const Generation& generation) {
  Json document = new_document("run", model, flags.model);
  document["seed"] = flags.sampling.options.seed;
  document["temperature"] = flags.sampling.options.temperature;
  document.update(policy_json(spec));
  document["kv_type"] = flags.cache.kv_type;
  document["prompt_tokens"] = prompt.size();
  document["generated_tokens"] = generation.tokens.size();
  document["stop_reason"] = name_of_reason(generation.reason);
  document["text"] = generation.text;
  document["tokens"] = generation.tokens;
  document["kv_bytes"] = session.peak_kv_bytes();
  document["prompt_tokens_per_s"] = static_cast<double>(prompt.size()) / prompt_seconds;
  document["decode_tokens_per_s"] = nullptr;
  if (generation.fed > 0) document["decode_tokens_per_s"] = static_cast<double>(generation.fed) / generation.seconds;
  return document;
}

void run(const Flags& flags, bool from_file) {
  const PolicySpec spec = spec_of(flags.cache);
  Delivery delivery(flags.output);
  const Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  Sampler sampler = need(Sampler::create(tokenizer, flags.sampling.options));
  const auto prompt = read_prompt(flags, from_file, tokenizer);
  if (prompt.empty()) fail_with(kFailed, "the prompt has no tokens");
  const auto model = load_model(flags.model);
  const std::size_t length = prompt.size() + flags.tokens;
  warn_past_context(model->info(), length);
  Session session = need(Session::create(
      model,
      {.policy = spec, .kv_type = kv_type_of(flags.cache), .sequence_tokens = static_cast<std::int64_t>(length)}));
  const double prompt_seconds = read(session, prompt, spec.whole_prompt);
  for (const Token token : prompt) sampler.accept(token);
  const auto show = [&](std::string_view text) {
    if (!flags.output.json && !text.empty()) {
      print(text);
      flush_output();
    }
    return !interrupted();
  };
  const Generation generation =
      need(generate(session, tokenizer, sampler, {.tokens = flags.tokens, .stop = flags.sampling.stop}, show));
  delivery.deliver(document_of(*model, flags, spec, session, prompt, prompt_seconds, generation), "\n");
}

}  // namespace

void add_run(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      add_command(app, "run", "Generate from raw text",
                  "a2sf run -m model.gguf -p \"The capital of France is\" -n 32 --policy a2sf --budget 128");
  add_model_flags(command, &flags->model);
  auto* prompt = command->add_option_group("prompt");
  prompt->add_option("-p,--prompt", flags->prompt, "The text to continue")->type_name("TEXT");
  auto* file =
      prompt->add_option("-f,--file", flags->file, "A file with the text; -: standard input")->type_name("FILE");
  prompt->require_option(1);
  command->add_option("-n,--tokens", flags->tokens, "Tokens to generate at most")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str();
  add_cache_flags(command, &flags->cache);
  add_sampling_flags(command, &flags->sampling);
  add_json_flag(command, &flags->output);
  add_output_file(command, &flags->output);
  command->callback([flags, file] { run(*flags, file->count() > 0); });
}

}  // namespace a2sf::app
