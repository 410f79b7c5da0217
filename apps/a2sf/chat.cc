#include "answer.h"
#include "auto_profile.h"
#include "commands.h"
#include "conversation.h"
#include "message_source.h"
#include "messages.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"
#include "tables.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <memory>

namespace a2sf::app {
namespace {

constexpr const char* kHelp =
    "/help    this list\n"
    "/reset   forget the conversation and start afresh\n"
    "/exit    end, like Ctrl-D\n"
    "Ctrl-C stops an answer, clears a line with text, and ends at an empty one. A pasted text is one message.\n";

struct Flags {
  ModelFlags model;
  CacheFlags cache;
  SamplingFlags sampling;
  OutputFlags output;
  std::string system;
  std::int64_t tokens = 1024;
};

PolicySpec read_spec(const Flags& flags) {
  CacheFlags cache = flags.cache;
  if (cache.pin == "system") cache.pin.clear();
  const PolicySpec spec = spec_of(cache);
  if (spec.has_ratio())
    fail_with(kWrongUsage, "--budget: a conversation has no length yet to take a ratio of; give a count");
  if (flags.cache.pin == "system" && flags.system.empty()) fail_with(kWrongUsage, "--pin system needs --system TEXT");
  return spec;
}

void pin_system(const Flags& flags, const Tokenizer& tokenizer, PolicySpec& spec) {
  if (flags.cache.pin != "system") return;
  const auto length = tokenizer.system_prompt_length(flags.system);
  if (!length)
    fail_with(kFailed, fmt::format("--pin system: {}; --pin N pins the first N tokens", length.error().message));
  spec.keep.pin = static_cast<std::int64_t>(*length);
  need(resolve(spec, bounded_layer(spec), 0, 0, 0, 0));
}

Tokenizer load_tokenizer(const Flags& flags) {
  Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  if (!tokenizer.has_chat_template()) {
    fail_with(kFailed, fmt::format("{} has no chat template: use a2sf run", flags.model.model));
  }
  return tokenizer;
}

// Talks with whoever writes the messages, and keeps the record.
class Chat {
 public:
  Chat(const Flags& flags, const std::shared_ptr<const Model>& model, Tokenizer tokenizer, const PolicySpec& spec)
      : flags_(flags),
        model_(*model),
        conversation_({.system = flags.system,
                       .session = {.policy = spec, .kv_type = kv_type_of(flags.cache), .sequence_tokens = 0},
                       .sampler = flags.sampling.options,
                       .stop = flags.sampling.stop,
                       .tokens = flags.tokens},
                      model, std::move(tokenizer)) {
    tell(fmt::format("{}, {}; Ctrl-C stops an answer, /help lists the commands, Ctrl-D ends\n",
                     model_title(model_.info()), to_string(spec)));
  }

  void run() {
    while (const auto message = messages_.next()) {
      if (*message == "/exit") return;
      if (is_command(*message)) {
        obey(*message);
      } else if (conversation_.is_full()) {
        tell(fmt::format("the conversation fills the model's context of {} tokens: /reset starts afresh\n",
                         model_.info().context));
      } else {
        answer(*message);
        if (interrupted() && !(messages_.are_typed() && forgive_ctrl_c())) return;
      }
    }
  }

  const Json& turns() const { return turns_; }
  const Session& session() const { return conversation_.session(); }

 private:
  // A line for whoever writes, beside the conversation.
  void tell(const std::string& text) const {
    if (!flags_.output.json) say(text);
  }

  // "/help" is one, "/usr/bin is a folder" is none.
  static bool is_command(const std::string& message) {
    const std::string word = message.substr(0, message.find_first_of(" \t\n"));
    const auto is_letter = [](unsigned char c) { return std::isalpha(c) != 0; };
    return word.size() > 1 && word[0] == '/' && std::all_of(word.begin() + 1, word.end(), is_letter) &&
           message.find('\n') == std::string::npos;
  }

  void obey(const std::string& command) {
    if (command == "/reset") {
      conversation_.reset();
      tell("the conversation starts afresh\n");
    } else if (command == "/help") {
      tell(kHelp);
    } else {
      tell(fmt::format("{} is no command; /help lists them\n", command));
    }
  }

  void answer(const std::string& message) {
    const Generation generation = conversation_.answer(
        message, [&](std::string_view text) { return flags_.output.json ? !interrupted() : show(text); });
    turns_.push_back({{"user", message},
                      {"assistant", generation.text},
                      {"generated_tokens", generation.tokens.size()},
                      {"stop_reason", name_of(generation.reason)}});
    if (flags_.output.json) return;
    print("\n");
    flush_output();
    if (::isatty(STDERR_FILENO) == 1)
      tell(figures(model_, conversation_.session(), generation, flags_.sampling.options) + "\n");
  }

  const Flags& flags_;
  const Model& model_;
  Conversation conversation_;
  MessageSource messages_;
  Json turns_ = Json::array();
};

void run(const Flags& flags) {
  PolicySpec spec = read_spec(flags);
  Delivery delivery(flags.output);
  Tokenizer tokenizer = load_tokenizer(flags);
  pin_system(flags, tokenizer, spec);
  const auto model = load_model(flags.model);
  use_auto_profile(flags.cache, model->info(), {}, {&spec, 1}, true);        // the first line says it
  if (flags.tokens < 0) tokens_to_generate(flags.tokens, model->info(), 0);  // refuses a model without a context
  Json document = new_document("chat", *model, flags.model);
  document["seed"] = flags.sampling.options.seed;
  document["sampling"] = sampling_json(flags.sampling);
  document.update(policy_json(spec));
  document["kv_type"] = flags.cache.kv_type;
  Chat chat(flags, model, std::move(tokenizer), spec);
  chat.run();
  document["turns"] = chat.turns();
  document["interrupted"] = interrupted();
  document["tokens"] = chat.session().position();
  document["kv_bytes"] = chat.session().peak_kv_bytes();
  document["cold_bytes"] = chat.session().cold_bytes();
  delivery.deliver(document, "");
  stop_if_interrupted();
}

}  // namespace

void add_chat(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  flags->sampling.options.temperature = 0.7F;
  CLI::App* command = add_command(
      app, "chat",
      "Talk to a model: at a terminal with history and pastes of any length, elsewhere a line is a message. "
      "/help lists the commands, Ctrl-D ends",
      "a2sf chat -m model.gguf --system \"You are brief.\" --pin system --policy a2sf --budget 512");
  add_model_flags(command, &flags->model);
  command->add_option("--system", flags->system, "The system prompt")->type_name("TEXT");
  add_tokens_flag(command, &flags->tokens, 1, "Tokens of an answer at most; -1: what the model's context has room for");
  flags->cache.standard_profile = "auto";
  add_cache_flags(command, &flags->cache);
  command->get_option("--pin")->description("First tokens that are never evicted, part of the budget; or system");
  add_sampling_flags(command, &flags->sampling);
  add_json_flag(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
