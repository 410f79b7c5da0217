#include "commands.h"
#include "engine/generate.h"
#include "options.h"
#include "outcome.h"
#include "progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

namespace a2sf::app {
namespace {

struct Flags {
  ModelFlags model;
  CacheFlags cache;
  SamplingFlags sampling;
  OutputFlags output;
  std::string system;
  std::size_t tokens = 1024;
};

// A conversation whose cache is kept from turn to turn: only the new part of the templated text is fed.
class Conversation {
 public:
  Conversation(const Flags& flags, std::shared_ptr<const Model> model, Tokenizer tokenizer, PolicySpec spec)
      : flags_(flags),
        model_(std::move(model)),
        tokenizer_(std::move(tokenizer)),
        spec_(std::move(spec)),
        sampler_(need(Sampler::create(tokenizer_, flags.sampling.options))) {
    reset();
  }

  void reset() {
    messages_.clear();
    if (!flags_.system.empty()) messages_.push_back({"system", flags_.system});
    forget();
  }

  Generation answer(const std::string& text) {
    messages_.push_back({"user", text});
    const std::string conversation = need(tokenizer_.apply_chat_template(messages_, true));
    if (!conversation.starts_with(in_cache_)) forget();  // the template rewrote an earlier turn: read it all again
    feed(conversation);
    const auto show = [&](std::string_view shown) {
      if (!flags_.output.json && !shown.empty()) {
        print(shown);
        flush_output();
      }
      return !interrupted();
    };
    Generation generation =
        need(generate(*session_, tokenizer_, sampler_, {.tokens = flags_.tokens, .stop = flags_.sampling.stop}, show));
    remember(generation);
    return generation;
  }

  const Session& session() const { return *session_; }

 private:
  void forget() {
    session_.emplace(need(Session::create(model_, {.policy = spec_, .kv_type = kv_type_of(flags_.cache)})));
    in_cache_.clear();
    pending_.reset();
  }

  void feed(const std::string& conversation) {
    const bool first = in_cache_.empty();
    std::vector<Token> tokens;
    if (pending_) tokens.push_back(*pending_);
    const auto added = need(tokenizer_.encode(conversation.substr(in_cache_.size()), first, true));
    tokens.insert(tokens.end(), added.begin(), added.end());
    for (const Token token : added) sampler_.accept(token);
    warn_once(tokens.size());
    Progress progress("prompt");
    need(session_->feed(tokens, WantLogits::last, spec_.whole_prompt,
                        [&](std::size_t done) { return progress.update(done, tokens.size()); }));
    in_cache_ = conversation;
    pending_.reset();
  }

  void remember(const Generation& generation) {
    messages_.push_back({"assistant", generation.text});
    if (generation.fed < generation.tokens.size()) pending_ = generation.tokens.back();
    in_cache_ += generation.text;
    // What a stop string cut off is in the cache: the next turn starts afresh.
    if (generation.reason == StopReason::stop_string) forget();
  }

  void warn_once(std::size_t added) {
    const std::size_t length = static_cast<std::size_t>(session_->position()) + added + flags_.tokens;
    if (warned_) return;
    warn_past_context(model_->info(), length);
    warned_ = model_->info().context > 0 && length > static_cast<std::size_t>(model_->info().context);
  }

  const Flags& flags_;
  std::shared_ptr<const Model> model_;
  Tokenizer tokenizer_;
  PolicySpec spec_;
  Sampler sampler_;
  std::optional<Session> session_;
  std::vector<ChatMessage> messages_;
  std::string in_cache_;          // the text that was fed, and the pending token's
  std::optional<Token> pending_;  // the answer's last token, not yet fed
  bool warned_ = false;
};

PolicySpec read_spec(const Flags& flags) {
  CacheFlags cache = flags.cache;
  if (cache.pin == "system") cache.pin.clear();
  const PolicySpec spec = spec_of(cache);
  if (spec.budget.ratio > 0)
    fail_with(kWrongUsage, "--budget: a conversation has no length yet to take a ratio of; give a count");
  if (flags.cache.pin == "system" && flags.system.empty()) fail_with(kWrongUsage, "--pin system needs --system TEXT");
  return spec;
}

void pin_system(const Flags& flags, const Tokenizer& tokenizer, PolicySpec& spec) {
  if (flags.cache.pin != "system") return;
  const ChatMessage message{"system", flags.system};
  const std::string text = need(tokenizer.apply_chat_template({&message, 1}, false));
  spec.pin = static_cast<std::int64_t>(need(tokenizer.encode(text, true, true)).size());
  need(resolve(spec, 0, 0, 0, 0));
}

// Lines of standard input.
class Lines {
 public:
  // Without its line break; nothing at the end of input.
  std::optional<std::string> next() {
    std::size_t end = text_.find('\n');
    while (end == std::string::npos && read_more()) end = text_.find('\n', searched_);
    if (text_.empty()) return std::nullopt;
    std::string line = text_.substr(0, end);
    text_.erase(0, end == std::string::npos ? end : end + 1);
    return line;
  }

 private:
  bool read_more() {
    char buffer[4096];
    wait_for_input(STDIN_FILENO);
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (count < 0) fail_with(kFailed, fmt::format("cannot read standard input: {}", std::strerror(errno)));
    searched_ = text_.size();
    text_.append(buffer, static_cast<std::size_t>(count));
    return count > 0;
  }

  std::string text_;          // read, but not yet asked for
  std::size_t searched_ = 0;  // of it, for a line break
};

// The next line a person typed; nothing at the end of input or at an empty line.
std::optional<std::string> next_message(Lines& lines) {
  if (::isatty(STDIN_FILENO) == 1 && ::isatty(STDERR_FILENO) == 1) fmt::print(stderr, "> ");
  const auto line = lines.next();
  if (!line || line->empty()) return std::nullopt;
  if (const auto wrong = find_invalid_utf8(*line)) {
    fail_with(kFailed, fmt::format("the message is not valid UTF-8: the first wrong byte is at offset {}", *wrong));
  }
  return line;
}

Json turn_json(const std::string& user, const Generation& generation) {
  return {{"user", user}, {"assistant", generation.text}, {"generated_tokens", generation.tokens.size()}};
}

void run(const Flags& flags) {
  PolicySpec spec = read_spec(flags);
  Delivery delivery(flags.output);
  Tokenizer tokenizer = need(Tokenizer::load(flags.model.model));
  if (!tokenizer.has_chat_template()) {
    fail_with(kFailed, fmt::format("{} has no chat template: use a2sf run", flags.model.model));
  }
  pin_system(flags, tokenizer, spec);
  const auto model = load_model(flags.model);
  Json document = new_document("chat", *model, flags.model);
  document["seed"] = flags.sampling.options.seed;
  document.update(policy_json(spec));
  document["kv_type"] = flags.cache.kv_type;
  document["turns"] = Json::array();
  Conversation conversation(flags, model, std::move(tokenizer), spec);
  Lines lines;
  while (const auto line = next_message(lines)) {
    if (*line == "/exit") break;
    if (*line == "/reset") {
      conversation.reset();
      continue;
    }
    document["turns"].push_back(turn_json(*line, conversation.answer(*line)));
    if (!flags.output.json) print("\n");
    flush_output();
  }
  document["tokens"] = conversation.session().position();
  document["kv_bytes"] = conversation.session().peak_kv_bytes();
  delivery.deliver(document, "");
}

}  // namespace

void add_chat(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  flags->sampling.options.temperature = 0.7F;
  CLI::App* command =
      add_command(app, "chat", "Talk to a model; /reset starts afresh, /exit, an empty line or Ctrl-D ends",
                  "a2sf chat -m model.gguf --system \"You are brief.\" --pin system --policy a2sf --budget 512");
  add_model_flags(command, &flags->model);
  command->add_option("--system", flags->system, "The system prompt")->type_name("TEXT");
  command->add_option("-n,--tokens", flags->tokens, "Tokens of an answer at most")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  add_cache_flags(command, &flags->cache);
  command->get_option("--pin")->description("First tokens that are never evicted, part of the budget; or system");
  add_sampling_flags(command, &flags->sampling);
  add_json_flag(command, &flags->output);
  command->callback([flags] { run(*flags); });
}

}  // namespace a2sf::app
