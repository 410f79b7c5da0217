#include "answer.h"
#include "auto_profile.h"
#include "commands.h"
#include "engine/generate.h"
#include "messages.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>

namespace a2sf::app {
namespace {

struct Flags {
  ModelFlags model;
  CacheFlags cache;
  SamplingFlags sampling;
  OutputFlags output;
  std::string prompt, file;
  std::int64_t tokens = 128;
  std::optional<std::size_t> logprobs;
  bool special = false, chat = false;
};

std::vector<Token> read_prompt(const Flags& flags, const std::string& text, const Tokenizer& tokenizer) {
  if (text.empty()) fail_with(kFailed, "the prompt is empty");
  if (!flags.chat) return need(tokenizer.encode(text, true, flags.special));
  const ChatMessage message{"user", text};
  return need(tokenizer.encode_chat({&message, 1}, true));
}

struct Work {
  double prompt_seconds = 0;
  Generation generation = {.tokens = {}, .text = {}, .reason = StopReason::interrupted};
};

// False: interrupted.
bool read(Session& session, const std::vector<Token>& prompt, bool whole_prompt) {
  Progress progress("prompt");
  const Status status = session.feed(prompt, WantLogits::last, whole_prompt,
                                     [&](std::size_t done) { return progress.update(done, prompt.size()); });
  if (!status && status.error().kind != ErrorKind::cancelled) raise(status.error(), kFailed);
  return status.has_value();
}

Work work(const Flags& flags, const Tokenizer& tokenizer, const std::vector<Token>& prompt, bool whole_prompt,
          std::size_t tokens, Session& session) {
  Work done;
  Sampler sampler = need(Sampler::create(tokenizer, flags.sampling.options));
  const auto start = std::chrono::steady_clock::now();
  if (!read(session, prompt, whole_prompt)) return done;
  done.prompt_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const Token token : prompt) sampler.accept(token);
  done.generation = need(
      generate(session, tokenizer, sampler, {.tokens = tokens, .stop = flags.sampling.stop, .logprobs = flags.logprobs},
               [&](std::string_view text) { return flags.output.json ? !interrupted() : show(text); }));
  return done;
}

Json rate_json(std::size_t tokens, double seconds) {
  if (tokens == 0 || seconds == 0) return nullptr;
  return static_cast<double>(tokens) / seconds;
}

Json logprob_json(const Tokenizer& tokenizer, Token token, double logprob) {
  return {{"token", token}, {"text", tokenizer.piece(token, true)}, {"logprob", logprob}};
}

// Of each token: what the model said of it, and of the likeliest ones in its place.
Json logprobs_json(const Tokenizer& tokenizer, const Generation& generation) {
  Json tokens = Json::array();
  for (std::size_t i = 0; i < generation.choices.size(); ++i) {
    const TokenChoice& choice = generation.choices[i];
    Json json = logprob_json(tokenizer, generation.tokens[i], choice.logprob);
    json["top"] = Json::array();
    for (const auto& [token, logprob] : choice.top) json["top"].push_back(logprob_json(tokenizer, token, logprob));
    tokens.push_back(std::move(json));
  }
  return tokens;
}

Json document_of(const Model& model, const Flags& flags, const PolicySpec& spec, const Session& session,
                 const std::vector<Token>& prompt, const Work& done) {
  const Generation& generation = done.generation;
  Json document = new_document("run", model, flags.model);
  const Json sampling = sampling_json(flags.sampling);
  document["seed"] = sampling["seed"];
  document["temperature"] = sampling["temperature"];
  document["sampling"] = sampling;
  document.update(policy_json(spec));
  document["kv_type"] = flags.cache.kv_type;
  document["prompt_tokens"] = prompt.size();
  document["generated_tokens"] = generation.tokens.size();
  document["stop_reason"] = name_of(generation.reason);
  document["interrupted"] = generation.reason == StopReason::interrupted;
  document["text"] = generation.text;
  document["tokens"] = generation.tokens;
  document["kv_bytes"] = session.peak_kv_bytes();
  document["cold_bytes"] = session.cold_bytes();
  document["prompt_tokens_per_s"] = rate_json(prompt.size(), done.prompt_seconds);
  document["decode_tokens_per_s"] = rate_json(generation.fed, generation.seconds);
  return document;
}

void add_logprobs_flag(CLI::App* command, std::optional<std::size_t>* logprobs) {
  constexpr std::size_t kMost = 20;
  command
      ->add_option("--logprobs", *logprobs,
                   "Add to the JSON document the log-probability of every token, before temperature and penalties, and "
                   "the K likeliest tokens in its place")
      ->type_name("K")
      ->default_str("none")
      ->check(CLI::Range(std::size_t{0}, kMost))
      ->group(kLastHeading);
}

void run(const Flags& flags, bool from_file) {
  PolicySpec spec = spec_of(flags.cache);
  if (flags.logprobs && !flags.output.json && flags.output.file.empty())
    warn("--logprobs does nothing without --json or --output");
  Delivery delivery(flags.output);
  const Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  const std::string text = from_file ? read_text(flags.file) : flags.prompt;
  const auto prompt = read_prompt(flags, text, tokenizer);
  if (prompt.empty()) fail_with(kFailed, "the prompt has no tokens");
  const auto model = load_model(flags.model);
  const std::size_t tokens = tokens_to_generate(flags.tokens, model->info(), prompt.size());
  const std::size_t length = prompt.size() + tokens;
  warn_past_context(model->info(), length);
  use_auto_profile(flags.cache, model->info(), {text_hash(text), static_cast<std::int64_t>(length)}, {&spec, 1},
                   flags.output.json);
  Session session = need(Session::create(model, {.policy = spec,
                                                 .kv_type = kv_type_of(flags.cache),
                                                 .sequence_tokens = static_cast<std::int64_t>(length),
                                                 .most_tokens = static_cast<std::int64_t>(length)}));
  const Work done = work(flags, tokenizer, prompt, spec.heeds_prompts(), tokens, session);
  Json document = document_of(*model, flags, spec, session, prompt, done);
  if (flags.logprobs) document["logprobs"] = logprobs_json(tokenizer, done.generation);
  if (!flags.output.json) print("\n");
  flush_output();
  if (!flags.output.json && ::isatty(STDERR_FILENO) == 1)
    say(figures(*model, session, done.generation, flags.sampling.options) + "\n");
  if (interrupted()) {  // a file appears only when complete
    if (flags.output.json) print(dump(document, 2));
    flush_output();
    stop_if_interrupted();
  }
  delivery.deliver(document, "");
}

}  // namespace

void add_run(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      add_command(app, "run", "Generate from raw text, or answer it",
                  "a2sf run -m model.gguf -p \"The capital of France is\" -n 32 --policy a2sf --budget 128");
  add_model_flags(command, &flags->model);
  auto* prompt = command->add_option_group("prompt");
  prompt->add_option("-p,--prompt", flags->prompt, "The text to continue")->type_name("TEXT");
  auto* file =
      prompt->add_option("-f,--file", flags->file, "A file with the text; -: standard input")->type_name("FILE");
  prompt->require_option(1);
  auto* chat = command->add_flag("--chat", flags->chat, "Answer the text: it is one message in the chat template");
  command->add_flag("--special", flags->special, "Read special tokens in the text, such as <|im_start|>")
      ->excludes(chat);
  add_tokens_flag(command, &flags->tokens, 0, "Tokens to generate at most; -1: what the model's context has room for");
  flags->cache.standard_profile = "auto";
  add_cache_flags(command, &flags->cache);
  add_sampling_flags(command, &flags->sampling);
  add_logprobs_flag(command, &flags->logprobs);
  add_json_flag(command, &flags->output);
  add_output_file(command, &flags->output);
  command->callback([flags, file] { run(*flags, file->count() > 0); });
}

}  // namespace a2sf::app
