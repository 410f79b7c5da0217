#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/logits.h"

namespace a2sf {

Generator::Generator(const Tokenizer& tokenizer, Sampler& sampler, GenerateOptions options)
    : tokenizer_(tokenizer),
      sampler_(sampler),
      options_(std::move(options)),
      stream_(options_.stop),
      done_(options_.tokens == 0) {}

std::optional<Token> Generator::next(std::span<const float> logits) {
  const Token token = sampler_.sample(logits);
  if (tokenizer_.is_end_of_generation(token)) {
    end(StopReason::end_of_generation);
    return std::nullopt;
  }
  generation_.tokens.push_back(token);
  if (options_.logprobs) {
    TokenChoice choice{0, std::vector<TokenProbability>(std::min(*options_.logprobs, logits.size()))};
    answer({.row = 0, .tokens = {&token, 1}, .log_probabilities = {&choice.logprob, 1}, .largest = choice.top}, logits);
    generation_.choices.push_back(std::move(choice));
  }
  generation_.text += stream_.push(tokenizer_.piece(token));
  if (stream_.stopped()) {
    end(StopReason::stop_string);
  } else if (generation_.tokens.size() == options_.tokens) {
    end(StopReason::length);
  }
  return done_ ? std::nullopt : std::optional(token);
}

void Generator::interrupt() {
  if (done_ && generation_.reason != StopReason::length) return;
  end(StopReason::interrupted);
  stream_.drop_partial_character();
}

void Generator::end(StopReason reason) {
  generation_.reason = reason;
  done_ = true;
}

std::string_view Generator::take_text() {
  const std::string_view text = std::string_view(generation_.text).substr(taken_);
  taken_ = generation_.text.size();
  return text;
}

void Generator::finish() { generation_.text += stream_.flush(); }

Result<Generation> generate(Session& session, const Tokenizer& tokenizer, Sampler& sampler,
                            const GenerateOptions& options, const std::function<bool(std::string_view)>& show) {
  using Clock = std::chrono::steady_clock;
  Generator generator(tokenizer, sampler, options);
  double seconds = 0;
  std::size_t fed = 0;
  while (!generator.done()) {
    const auto token = generator.next(session.logits());
    if (!show(generator.take_text())) generator.interrupt();
    if (generator.done()) break;
    const auto start = Clock::now();
    const Status status = session.feed({&*token, 1});
    seconds += std::chrono::duration<double>(Clock::now() - start).count();
    if (!status) return tl::unexpected(status.error());
    ++fed;
  }
  generator.finish();
  show(generator.take_text());
  Generation generation = generator.generation();
  generation.seconds = seconds;
  generation.fed = fed;
  return generation;
}

}  // namespace a2sf
