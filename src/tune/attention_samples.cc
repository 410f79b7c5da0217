#include "tune/attention_samples.h"

#include <fmt/format.h>

#include <deque>

#include "policy/hooks/learned_features.h"

namespace a2sf {
namespace {

// The attention that each token of the full cache has drawn so far.
class DrawnSoFar final : public Observer {
 public:
  DrawnSoFar(int layers, int kv_heads, std::size_t tokens)
      : kv_heads_(kv_heads), drawn_(static_cast<std::size_t>(layers * kv_heads), std::vector<double>(tokens)) {}

  void observe(const HookLayer& layer) override {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      const HookHead& head = layer.head(h);
      auto& drawn = drawn_[index(layer.layer(), h)];
      for (int g = 0; g < head.group(); ++g) {
        const auto probabilities = head.probabilities(0, g);
        for (int slot = 0; slot < head.slots(); ++slot) {
          if (head.position(slot) >= 0)
            drawn[static_cast<std::size_t>(head.position(slot))] += probabilities[static_cast<std::size_t>(slot)];
        }
      }
    }
  }

  double of(int layer, int kv_head, std::int32_t position) const {
    return drawn_[index(layer, kv_head)][static_cast<std::size_t>(position)];
  }

 private:
  std::size_t index(int layer, int kv_head) const { return static_cast<std::size_t>(layer * kv_heads_ + kv_head); }

  int kv_heads_;
  std::vector<std::vector<double>> drawn_;  // [layer, KV head][position]
};

// Sees the bounded cache at the ends of steps, where it is about to evict and the full cache is no further.
class Decisions final : public ShadowObserver {
 public:
  Decisions(std::vector<AttentionSamples>& samples, std::shared_ptr<const DrawnSoFar> full, int kv_heads,
            std::int64_t budget)
      : samples_(samples), full_(std::move(full)), budget_(budget), kv_heads_(kv_heads) {
    open_.resize(samples.size() * static_cast<std::size_t>(kv_heads));
  }

  void observe(const HookLayer& layer) override {
    const std::int64_t beyond = layer.position() + 1 - budget_;
    if (beyond <= 0 || beyond % kDecisionBlock != 0) return;
    for (int h = 0; h < layer.kv_heads(); ++h) {
      auto& open = open_[static_cast<std::size_t>(layer.layer() * kv_heads_ + h)];
      if (!open.empty() && open.front().row + kDrawnRows == layer.position()) {
        close(open.front(), layer.layer(), h);
        open.pop_front();
      }
      const HookHead& head = layer.head(h);
      if (head.held() > head.budget()) open.push_back(decide(head, layer, h));
    }
  }

 private:
  struct Token {
    std::int32_t position;
    double drawn;  // until the decision
    Features features;
  };
  struct Decision {
    std::int64_t row;
    std::vector<Token> tokens;
  };

  Decision decide(const HookHead& head, const HookLayer& layer, int kv_head) {
    Decision decision{layer.position(), {}};
    features_.begin(head, layer.position());
    for (std::size_t i = 0; i < features_.candidates().size(); ++i) {
      const int slot = features_.candidates()[i];
      const std::int32_t position = head.position(slot);
      decision.tokens.push_back({position, full_->of(layer.layer(), kv_head, position),
                                 features_.of(head, i, read_norms(head, slot, vector_))});
    }
    return decision;
  }

  void close(const Decision& decision, int layer, int kv_head) {
    AttentionSamples& samples = samples_[static_cast<std::size_t>(layer)];
    for (const Token& token : decision.tokens) {
      samples.features.push_back(token.features);
      samples.drawn.push_back(static_cast<float>(full_->of(layer, kv_head, token.position) - token.drawn));
    }
    samples.ends.push_back(samples.features.size());
  }

  std::vector<AttentionSamples>& samples_;
  std::shared_ptr<const DrawnSoFar> full_;
  std::int64_t budget_;
  int kv_heads_;
  std::vector<std::deque<Decision>> open_;  // [layer, KV head]: rows that follow are still to come
  TokenFeatures features_;
  std::vector<float> vector_;
};

Status read(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> window, std::int64_t budget,
            std::vector<AttentionSamples>& samples, const std::function<bool(std::size_t)>& keep_going) {
  const auto length = static_cast<std::int64_t>(window.size());
  auto session = Session::create(model, {.policy = parse_policy("full").value(), .most_tokens = length});
  if (!session) return tl::unexpected(session.error());
  const auto spec = parse_policy(fmt::format("a2sf:budget={}:block={}", budget, kDecisionBlock)).value();
  const ModelInfo& info = model->info();
  const auto full = std::make_shared<DrawnSoFar>(info.layers, info.kv_heads, window.size());
  if (auto observed = session->observe(full, {.every_row = true, .last_rows = 1}); !observed) return observed;
  if (auto added = session->add_shadow(spec, std::make_shared<Decisions>(samples, full, info.kv_heads, budget),
                                       {.every_row = true, .last_rows = 1, .keys_values = true});
      !added)
    return added;
  const auto first = static_cast<std::size_t>(budget % kDecisionBlock), step = static_cast<std::size_t>(kDecisionBlock);
  for (std::size_t done = 0; done < window.size();) {
    const std::size_t count = std::min(done == 0 && first > 0 ? first : step, window.size() - done);
    if (auto fed = session->feed(window.subspan(done, count), WantLogits::none); !fed) return fed;
    done += count;
    if (!keep_going(done)) return fail(ErrorKind::cancelled, "interrupted");
  }
  return {};
}

}  // namespace

Result<std::vector<AttentionSamples>> collect_samples(const std::shared_ptr<const Model>& model,
                                                      const TuneWindows& windows, std::int64_t budget,
                                                      const TuneProgress& progress) {
  std::vector<AttentionSamples> samples(static_cast<std::size_t>(model->info().layers));
  const std::size_t total = windows.count * windows.length;
  for (std::size_t i = 0; i < windows.count; ++i) {
    const auto keep_going = [&](std::size_t done) { return !progress || progress(i * windows.length + done, total); };
    if (auto done = read(model, windows.window(i), budget, samples, keep_going); !done)
      return tl::unexpected(done.error());
  }
  return samples;
}

}  // namespace a2sf
