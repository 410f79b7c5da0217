#include "engine/generate.h"

#include <chrono>
#include <utility>

namespace a2sf {
namespace {

using Clock = std::chrono::steady_clock;

Status feed_one(Session& session, Token token, Generation& generation) {
  const auto start = Clock::now();
  auto status = session.feed({&token, 1});
  generation.seconds += std::chrono::duration<double>(Clock::now() - start).count();
  if (status) ++generation.fed;
  return status;
}

}  // namespace

Result<Generation> generate(Session& session, const Tokenizer& tokenizer, Sampler& sampler,
                            const GenerateOptions& options, const std::function<bool(std::string_view)>& show) {
  Generation generation;
  TextStream stream(options.stop);
  const auto pass_on = [&](const std::string& text) {
    generation.text += text;
    return show(text);
  };
  while (generation.tokens.size() < options.tokens) {
    const Token token = sampler.sample(session.logits());
    if (tokenizer.is_end_of_generation(token)) {
      generation.reason = StopReason::end_of_generation;
      break;
    }
    generation.tokens.push_back(token);
    const bool goes_on = pass_on(stream.push(tokenizer.piece(token)));
    if (stream.stopped()) {
      generation.reason = StopReason::stop_string;
      break;
    }
    if (!goes_on) {
      generation.reason = StopReason::interrupted;
      stream.drop_partial_character();
      break;
    }
    if (generation.tokens.size() == options.tokens) break;
    if (auto status = feed_one(session, token, generation); !status) return tl::unexpected(status.error());
  }
  pass_on(stream.flush());
  return generation;
}

}  // namespace a2sf
