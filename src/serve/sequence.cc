#include "serve/sequence.h"

#include <algorithm>
#include <utility>

#include "kernels/logits.h"

namespace a2sf::serve {
namespace {

constexpr std::size_t kScoredRows = 64;  // of a chunk whose whole rows of logits are wanted: they are large

TokenChoice choice_of(Token token, std::size_t likeliest, std::span<const float> logits) {
  TokenChoice choice{0, std::vector<TokenProbability>(std::min(likeliest, logits.size()))};
  answer({.row = 0, .tokens = {&token, 1}, .log_probabilities = {&choice.logprob, 1}, .largest = choice.top}, logits);
  return choice;
}

}  // namespace

Result<std::unique_ptr<Sequence>> Sequence::create(const std::shared_ptr<const Model>& model,
                                                   const Tokenizer& tokenizer, std::shared_ptr<const Job> job,
                                                   std::size_t number, std::optional<Session> resumed) {
  const auto& prompt = job->prompt_of(number).tokens;
  auto session =
      resumed ? Result<Session>(std::move(*resumed)) : Session::create(model, job->session_options(prompt.size()));
  if (!session) return tl::unexpected(session.error());
  SamplerOptions options = job->sampler;
  options.seed += static_cast<std::uint32_t>(number % job->choices);
  auto sampler = Sampler::create(tokenizer, options);
  if (!sampler) return tl::unexpected(sampler.error());
  for (const Token token : prompt) sampler->accept(token);
  return std::unique_ptr<Sequence>(
      new Sequence(model->info(), tokenizer, std::move(job), number, std::move(*session), std::move(*sampler)));
}

Sequence::Sequence(const ModelInfo& model, const Tokenizer& tokenizer, std::shared_ptr<const Job> job,
                   std::size_t number, Session session, Sampler sampler)
    : model_(model),
      job_(std::move(job)),
      number_(number),
      session_(std::move(session)),
      sampler_(std::move(sampler)),
      generator_(tokenizer, sampler_, job_->generate),
      cached_(static_cast<std::size_t>(session_.position())),
      fed_(cached_) {
  if (job_->is_viewed) session_.record_evictions();
}

Feed Sequence::feed(std::size_t rows) {
  if (!reads()) {
    feeding_ = {&drawn_, 1};
    return {&session_, feeding_};
  }
  if (job_->scores_prompt) rows = std::min(rows, kScoredRows);
  const std::size_t shared = begins().shared;
  if (fed_ < shared) rows = std::min(rows, shared - fed_);
  const auto rest = std::span(prompt()).subspan(fed_);
  feeding_ = rest.first(std::min(rows, rest.size()));
  const bool is_last = feeding_.size() == rest.size(), heeds = job_->policy.heeds_prompts();
  const WantLogits logits = job_->scores_prompt ? WantLogits::all : is_last ? WantLogits::last : WantLogits::none;
  return {&session_, feeding_, logits, heeds, heeds && is_last};
}

Event Sequence::take(std::span<const float> logits) {
  Event event{.sequence = number_};
  if (reads()) {
    if (job_->scores_prompt) score_prompt(logits, event);
    fed_ += feeding_.size();
    if (reads()) {
      if (job_->is_viewed) tell_view(event);
      return event;
    }
    const std::size_t rows = job_->scores_prompt ? feeding_.size() : 1;
    logits = logits.last(logits.size() / rows);
  }
  if (!generator_.done()) draw(logits, event);
  if (generator_.done()) {
    generator_.finish();
    event.end = end();
  }
  event.text += generator_.take_text();
  if (job_->is_viewed) tell_view(event);
  return event;
}

// The first view and the last one are whole.
void Sequence::tell_view(Event& event) {
  event.view = take_view(session_, model_, told_ == 0 || event.end);
  for (; std::cmp_less(told_, session_.position()); ++told_) event.view->tokens.push_back(token_at(told_));
}

// A row is about the token after it.
void Sequence::score_prompt(std::span<const float> logits, Event& event) const {
  const std::size_t vocabulary = logits.size() / feeding_.size();
  if (fed_ == 0) event.tokens.push_back({prompt().front(), std::nullopt});
  for (std::size_t row = 0; row < feeding_.size() && fed_ + row + 1 < prompt().size(); ++row) {
    const Token next = prompt()[fed_ + row + 1];
    event.tokens.push_back(
        {next, choice_of(next, *job_->generate.logprobs, logits.subspan(row * vocabulary, vocabulary))});
  }
}

void Sequence::draw(std::span<const float> logits, Event& event) {
  const std::size_t before = generator_.generation().tokens.size();
  if (const auto token = generator_.next(logits)) drawn_ = *token;
  const Generation& generation = generator_.generation();
  if (job_->generate.logprobs && generation.tokens.size() > before)
    event.tokens.push_back({generation.tokens.back(), generation.choices.back()});
}

Token Sequence::token_at(std::size_t position) const {
  const std::size_t length = prompt().size();
  return position < length ? prompt()[position] : generator_.generation().tokens[position - length];
}

// The token that was drawn last may not have been read.
std::vector<Token> Sequence::tokens() const {
  std::vector<Token> tokens(static_cast<std::size_t>(session_.position()));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = token_at(i);
  return tokens;
}

SequenceEnd Sequence::end() const {
  std::size_t kept = 0;
  for (int layer = 0; layer < model_.layers; ++layer) {
    for (int head = 0; head < model_.kv_heads; ++head) kept += session_.retained(layer, head).size();
  }
  const double retained = static_cast<double>(kept) / (model_.layers * model_.kv_heads);
  return {.reason = generator_.generation().reason,
          .prompt_tokens = prompt().size(),
          .generated_tokens = generator_.generation().tokens.size(),
          .retained = retained,
          .evicted = static_cast<double>(session_.position()) - retained,
          .kv_bytes = session_.peak_kv_bytes(),
          .cached_tokens = cached_};
}

}  // namespace a2sf::serve
