#include "conversation.h"

#include "answer.h"
#include "outcome.h"
#include "progress.h"

#include <algorithm>
#include <utility>

namespace a2sf::app {
namespace {

bool begins_with(const std::vector<Token>& tokens, const std::vector<Token>& beginning) {
  return tokens.size() > beginning.size() && std::equal(beginning.begin(), beginning.end(), tokens.begin());
}

}  // namespace

Conversation::Conversation(ConversationOptions options, std::shared_ptr<const Model> model, Tokenizer tokenizer)
    : options_(std::move(options)), model_(std::move(model)), tokenizer_(std::move(tokenizer)) {
  reset();
}

void Conversation::reset() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  sampler_ = need(Sampler::create(tokenizer_, options_.sampler));
  forget();
}

void Conversation::forget() {
  session_.emplace(need(Session::create(model_, options_.session)));
  fed_.clear();
  accepted_ = 0;
}

Generation Conversation::answer(const std::string& text, const std::function<bool(std::string_view)>& show) {
  messages_.push_back({"user", text});
  const auto tokens = need(tokenizer_.encode_chat(messages_, true));
  // Another beginning than what is in the cache: the template rewrote an earlier turn, or a stop string cut one short.
  if (!begins_with(tokens, fed_)) forget();
  Generation generation;
  generation.reason = StopReason::interrupted;
  if (read(tokens)) {
    const GenerateOptions limits{tokens_to_generate(options_.tokens, model_->info(), tokens.size()), options_.stop};
    generation = need(generate(*session_, tokenizer_, *sampler_, limits, show));
    fed_.insert(fed_.end(), generation.tokens.begin(),
                generation.tokens.begin() + static_cast<std::ptrdiff_t>(generation.fed));
    accepted_ = tokens.size() + generation.tokens.size();
  }
  const bool is_whole = generation.reason != StopReason::stop_string;
  messages_.push_back({"assistant", generation.text, is_whole ? generation.tokens : std::vector<Token>()});
  return generation;
}

// False: interrupted; what was read until then stays in the cache.
bool Conversation::read(const std::vector<Token>& tokens) {
  for (std::size_t i = std::max(accepted_, fed_.size()); i < tokens.size(); ++i) sampler_->accept(tokens[i]);
  accepted_ = tokens.size();
  warn_once(tokens.size() + static_cast<std::size_t>(std::max<std::int64_t>(0, options_.tokens)));
  const std::vector<Token> added(tokens.begin() + static_cast<std::ptrdiff_t>(fed_.size()), tokens.end());
  Progress progress("prompt");
  const Status status = session_->feed(added, WantLogits::last, options_.session.policy.heeds_prompts(),
                                       [&](std::size_t done) { return progress.update(done, added.size()); });
  if (!status && status.error().kind != ErrorKind::cancelled) raise(status.error(), kFailed);
  fed_.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(session_->position()));
  return status.has_value();
}

bool Conversation::is_full() const {
  return options_.tokens < 0 && tokens_to_generate(-1, model_->info(), fed_.size()) <= 1;
}

void Conversation::warn_once(std::size_t length) {
  if (warned_) return;
  warn_past_context(model_->info(), length);
  warned_ = model_->info().context > 0 && length > static_cast<std::size_t>(model_->info().context);
}

}  // namespace a2sf::app
