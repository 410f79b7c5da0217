#include "eval/perplexity.h"

#include <a2sf/batch.h>

#include "eval/distribution.h"
#include "eval/segments.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace a2sf {
namespace {

using Clock = std::chrono::steady_clock;

struct Sums {
  double loss = 0, squares = 0, seconds = 0;
  std::size_t scored = 0, kv_bytes = 0, cold_bytes = 0;
};

void add_loss(double loss, Sums& sums) {
  sums.loss += loss;
  sums.squares += loss * loss;
  ++sums.scored;
}

// A segment of at most one step, every row of which is scored; the last row of the window predicts nothing.
Status feed_scored(Session& session, const Segment& segment, std::span<const std::int32_t> window, Batch& batch,
                   Sums& sums) {
  const std::size_t predictions = std::min(segment.end, window.size() - 1) - segment.begin;
  // Its last token is fed by itself then, since what follows is of the last rows.
  const auto tokens = window.subspan(segment.begin, std::max<std::size_t>(1, predictions));
  const Feed feed{.session = &session,
                  .tokens = tokens,
                  .logits = WantLogits::none,
                  .next = window.subspan(segment.begin + 1, predictions)};
  if (auto ran = batch.run({&feed, 1}); !ran) return ran;
  if (!batch.status(0)) return batch.status(0);
  for (const double log_probability : batch.log_probabilities(0)) add_loss(-log_probability, sums);
  const auto rest = window.subspan(segment.begin + tokens.size(), segment.end - segment.begin - tokens.size());
  return rest.empty() ? Status() : session.feed(rest, WantLogits::none);
}

// The last row of a prompt, which predicts the token after it.
void score_last(const Session& session, const Segment& segment, std::span<const std::int32_t> window, Sums& sums) {
  const auto logits = session.logits();
  add_loss(log_sum_exp(logits) - logits[static_cast<std::size_t>(window[segment.end])], sums);
}

Status read_window(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> window,
                   const PerplexityOptions& options, const std::function<bool(std::size_t)>& keep_going, Sums& sums) {
  const auto length = static_cast<std::int64_t>(window.size());
  auto session = Session::create(
      model, {.policy = options.policy, .kv_type = options.kv_type, .sequence_tokens = length, .most_tokens = length});
  if (!session) return tl::unexpected(session.error());
  const std::size_t half = options.score == ScoredPart::half ? window.size() / 2 : 0;
  Batch batch;
  const SegmentPlan plan{.tokens = window.size(),
                         .prompt = options.prompt,
                         .first_row = std::max(half, options.prompt > 0 ? options.prompt - 1 : 0)};
  for (const Segment& segment : make_segments(plan)) {
    const auto start = Clock::now();
    auto status = segment.logits == WantLogits::all
                      ? feed_scored(*session, segment, window, batch, sums)
                      : session->feed(window.subspan(segment.begin, segment.end - segment.begin), segment.logits,
                                      segment.prompt && options.policy.heeds_prompts(),
                                      [&](std::size_t fed) { return keep_going(segment.begin + fed); });
    sums.seconds += std::chrono::duration<double>(Clock::now() - start).count();
    if (!status) return status;
    if (!keep_going(segment.end)) return fail(ErrorKind::cancelled, "interrupted");
    if (segment.logits == WantLogits::last) score_last(*session, segment, window, sums);
  }
  sums.kv_bytes = std::max(sums.kv_bytes, session->peak_kv_bytes());
  sums.cold_bytes = std::max(sums.cold_bytes, session->cold_bytes());
  return {};
}

Status check(const Model& model, std::span<const std::int32_t> tokens, const PerplexityOptions& options) {
  if (options.window < 3) return fail(ErrorKind::bad_input, "a window needs at least 3 tokens");
  if (options.prompt >= options.window) {
    return fail(ErrorKind::bad_input, fmt::format("a prompt of {} tokens leaves nothing to score in a window of {}",
                                                  options.prompt, options.window));
  }
  if (options.policy.evicts_at_prompt_end() && options.prompt == 0) {
    return fail(ErrorKind::bad_input,
                "block=prompt needs a prompt: say how many tokens of each window with --prompt N");
  }
  if (tokens.size() < options.window) {
    return fail(ErrorKind::bad_input,
                fmt::format("the text has {} tokens, fewer than one window of {}: choose a smaller --ctx",
                            tokens.size(), options.window));
  }
  return check_tokens(tokens, model.info().vocabulary);
}

PerplexityReport make_report(const Sums& sums, std::size_t windows, std::size_t tokens_read) {
  const auto count = static_cast<double>(sums.scored);
  const double mean = sums.loss / count;
  const double variance = std::max(0.0, sums.squares / count - mean * mean);
  const double perplexity = std::exp(mean);
  return {.perplexity = perplexity,
          .standard_error = perplexity * std::sqrt(variance / std::max(1.0, count - 1)),
          .windows = windows,
          .tokens_scored = sums.scored,
          .kv_bytes = sums.kv_bytes,
          .cold_bytes = sums.cold_bytes,
          .tokens_per_s = static_cast<double>(tokens_read) / sums.seconds};
}

}  // namespace

Result<PerplexityReport> perplexity(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
                                    const PerplexityOptions& options, const EvalProgress& progress) {
  if (auto status = check(*model, tokens, options); !status) return tl::unexpected(status.error());
  const std::size_t windows = tokens.size() / options.window, total = windows * options.window;
  Sums sums;
  for (std::size_t begin = 0; begin < total; begin += options.window) {
    const auto part = tokens.subspan(begin, options.window);
    std::vector<std::int32_t> window(part.begin(), part.end());
    if (options.first_token >= 0) window.front() = options.first_token;
    const auto keep_going = [&](std::size_t fed) { return !progress || progress(begin + fed, total); };
    auto status = read_window(model, window, options, keep_going, sums);
    if (!status) return tl::unexpected(status.error());
  }
  return make_report(sums, windows, total);
}

}  // namespace a2sf
