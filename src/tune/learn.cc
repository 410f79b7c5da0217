#include "tune/learn.h"

#include <fmt/format.h>

#include "eval/segments.h"
#include "tune/attention_samples.h"
#include "tune/train.h"

namespace a2sf {
namespace {

constexpr std::size_t kTokensPerLayer = 100;  // that are read while a layer's perceptron is trained, about

Status check(const Model& model, const TuneWindows& windows, std::int64_t budget) {
  const auto least = static_cast<std::size_t>(budget + kDecisionBlock + kDrawnRows);
  if (windows.length < least) {
    return fail(
        ErrorKind::bad_input,
        fmt::format("a window of {} tokens has no decision at budget {}, after which {} tokens follow: {} tokens "
                    "are the fewest",
                    windows.length, budget, kDrawnRows, least));
  }
  if (windows.tokens.size() < windows.length) {
    return fail(ErrorKind::bad_input,
                fmt::format("the text has {} tokens, fewer than one window of {}: choose a smaller --ctx",
                            windows.tokens.size(), windows.length));
  }
  return check_tokens(windows.tokens, model.info().vocabulary);
}

}  // namespace

Result<LearnedModel> learn_score(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                 const LearnOptions& options, const TuneProgress& progress) {
  if (auto valid = check(*model, windows, options.budget); !valid) return tl::unexpected(valid.error());
  const auto layers = static_cast<std::size_t>(model->info().layers);
  const std::size_t training = options.kind == LearnedKind::mlp ? kTokensPerLayer : 0;
  const std::size_t reading = windows.count * windows.length, total = reading + layers * training;
  const auto counted = [&](std::size_t done) { return !progress || progress(done, total); };
  const auto samples =
      collect_samples(model, windows, options.budget, [&](std::size_t done, std::size_t) { return counted(done); });
  if (!samples) return tl::unexpected(samples.error());
  LearnedModel learned{.layers = {}, .model = model->info().name, .model_hash = model->info().hash, .texts = {}};
  for (const AttentionSamples& of_layer : *samples) {
    const double before = static_cast<double>(reading + learned.layers.size() * training);
    bool goes_on = true;
    const auto keep_going = [&](double share) {
      return goes_on = counted(static_cast<std::size_t>(before + share * static_cast<double>(training)));
    };
    learned.layers.push_back(options.kind == LearnedKind::mlp ? train_mlp(of_layer, keep_going)
                                                              : train_linear(of_layer));
    if (!goes_on) return fail(ErrorKind::cancelled, "interrupted");
  }
  return learned;
}

}  // namespace a2sf
