#include "eval/compare.h"

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

// One policy on its way through the text.
struct Runner {
  PolicySpec spec;
  Session session;
  double loss = 0, divergence = 0;
  std::size_t agreed = 0;
  double seconds[2] = {0, 0};  // prompt, decode
};

class Comparison {
 public:
  Comparison(std::span<const std::int32_t> tokens, const EvalProgress& progress)
      : tokens_(tokens), progress_(progress) {}

  Status add(const std::shared_ptr<const Model>& model, const PolicySpec& spec, KvType kv_type);
  Status run(const SegmentPlan& plan);
  ComparisonReport report(const SegmentPlan& plan) const;

 private:
  Status advance(const Segment& segment);
  Status feed(Runner& runner, const Segment& segment);
  void score(Runner& runner, const Segment& segment);
  void read_references(const Segment& segment);
  std::size_t scored_rows(const Segment& segment) const;
  std::span<const float> row(const Runner& runner, std::size_t index) const;

  std::span<const std::int32_t> tokens_;
  const EvalProgress& progress_;
  std::vector<Runner> runners_;
  std::vector<ReferenceRow> references_;  // the full cache's rows of the segment at hand
  std::size_t vocabulary_ = 0, done_ = 0, scored_ = 0;
};

Status Comparison::add(const std::shared_ptr<const Model>& model, const PolicySpec& spec, KvType kv_type) {
  vocabulary_ = static_cast<std::size_t>(model->info().vocabulary);
  const auto length = static_cast<std::int64_t>(tokens_.size());
  const SessionOptions options{.policy = spec, .kv_type = kv_type, .sequence_tokens = length, .most_tokens = length};
  auto session = Session::create(model, options);
  if (!session) return tl::unexpected(session.error());
  runners_.push_back({.spec = spec, .session = std::move(*session)});
  return {};
}

Status Comparison::run(const SegmentPlan& plan) {
  for (const Segment& segment : make_segments(plan)) {
    if (auto status = advance(segment); !status) return status;
  }
  return {};
}

Status Comparison::advance(const Segment& segment) {
  for (Runner& runner : runners_) {
    if (auto status = feed(runner, segment); !status) return status;
    if (&runner == runners_.data()) read_references(segment);
    score(runner, segment);
  }
  scored_ += scored_rows(segment);
  return {};
}

Status Comparison::feed(Runner& runner, const Segment& segment) {
  const std::size_t total = tokens_.size() * runners_.size();
  const auto keep_going = [&](std::size_t fed) { return !progress_ || progress_(done_ + fed, total); };
  const auto start = Clock::now();
  auto status = runner.session.feed(tokens_.subspan(segment.begin, segment.end - segment.begin), segment.logits,
                                    segment.prompt && runner.spec.heeds_prompts(), keep_going);
  runner.seconds[segment.decode] += std::chrono::duration<double>(Clock::now() - start).count();
  if (!status) return status;
  done_ += segment.end - segment.begin;
  if (!keep_going(0)) return fail(ErrorKind::cancelled, "interrupted");
  return {};
}

std::size_t Comparison::scored_rows(const Segment& segment) const {
  if (segment.logits == WantLogits::none) return 0;
  return std::min(segment.end, tokens_.size() - 1) - std::min(first_wanted_row(segment), tokens_.size() - 1);
}

std::span<const float> Comparison::row(const Runner& runner, std::size_t index) const {
  return runner.session.logits().subspan(index * vocabulary_, vocabulary_);
}

void Comparison::read_references(const Segment& segment) {
  references_.clear();
  for (std::size_t i = 0; i < scored_rows(segment); ++i) references_.emplace_back(row(runners_.front(), i));
}

void Comparison::score(Runner& runner, const Segment& segment) {
  const bool is_full = &runner == runners_.data();
  for (std::size_t i = 0; i < references_.size(); ++i) {
    const auto logits = row(runner, i);
    const auto next = static_cast<std::size_t>(tokens_[first_wanted_row(segment) + i + 1]);
    const double log_sum = is_full ? references_[i].log_sum() : log_sum_exp(logits);
    runner.loss += log_sum - logits[next];
    if (is_full) continue;
    runner.divergence += references_[i].divergence(logits, log_sum);
    runner.agreed += references_[i].top() == top_index(logits);
  }
}

ComparisonReport Comparison::report(const SegmentPlan& plan) const {
  ComparisonReport report{scored_, {}};
  const auto count = static_cast<double>(scored_);
  const auto decoded = static_cast<double>(plan.decode), read = static_cast<double>(plan.tokens) - decoded;
  for (const Runner& runner : runners_) {
    const bool is_full = &runner == runners_.data();
    report.rows.push_back({.spec = runner.spec,
                           .perplexity = std::exp(runner.loss / count),
                           .kl_to_full = runner.divergence / count,
                           .top1_agreement = is_full ? 1.0 : static_cast<double>(runner.agreed) / count,
                           .kv_bytes = runner.session.peak_kv_bytes(),
                           .cold_bytes = runner.session.cold_bytes(),
                           .prompt_tokens_per_s = read / runner.seconds[0],
                           .decode_tokens_per_s = decoded / runner.seconds[1]});
  }
  return report;
}

}  // namespace

Status check_comparison(const Model& model, std::span<const std::int32_t> tokens, std::span<const PolicySpec> specs,
                        const CompareOptions& options) {
  if (tokens.size() < 3 || options.prompt + 2 > tokens.size()) {
    return fail(ErrorKind::bad_input,
                fmt::format("the text has too few tokens to compare on: {}, at least {} are needed", tokens.size(),
                            std::max<std::size_t>(3, options.prompt + 2)));
  }
  for (const PolicySpec& spec : specs) {
    if (spec.evicts_at_prompt_end() && options.prompt == 0) {
      return fail(ErrorKind::bad_input,
                  "block=prompt needs a prompt: say how many of the first tokens with --prompt N");
    }
  }
  return check_tokens(tokens, model.info().vocabulary);
}

Result<ComparisonReport> compare(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
                                 std::span<const PolicySpec> specs, const CompareOptions& options,
                                 const EvalProgress& progress) {
  if (auto status = check_comparison(*model, tokens, specs, options); !status) return tl::unexpected(status.error());
  Comparison comparison(tokens, progress);
  auto status = comparison.add(model, parse_policy("full").value(), options.kv_type);
  for (const PolicySpec& spec : specs) {
    if (status && !spec.keeps_all()) status = comparison.add(model, spec, options.kv_type);
  }
  const std::size_t read = std::max<std::size_t>(1, options.prompt);
  const SegmentPlan plan{.tokens = tokens.size(),
                         .prompt = options.prompt,
                         .first_row = read - 1,
                         .decode = std::min(options.decode, tokens.size() - read)};
  if (status) status = comparison.run(plan);
  if (!status) return tl::unexpected(status.error());
  return comparison.report(plan);
}

}  // namespace a2sf
