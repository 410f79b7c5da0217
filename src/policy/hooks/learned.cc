// learned: the token goes of which a model that was trained on a text expects the least attention, times its value's
// norm, in the rows to come (policy/learned_model.h). Of the published neighbours, KVP (arXiv 2602.10238) learns a
// ranking for each head from keys and values alone, and LookaheadKV (arXiv 2603.10899) adds trained tokens and LoRA
// modules to the model, which predict the attention of its answer at the end of a prompt.
#include <a2sf/hook.h>
#include <a2sf/model.h>

#include <fmt/format.h>

#include <string>

#include "policy/hooks/hooks.h"
#include "policy/hooks/learned_features.h"
#include "policy/hooks/lowest_first.h"

namespace a2sf {
namespace {

// A slot's numbers: norms are read once, since keys and values never change.
enum LearnedNumber { kKeyNorm, kValueNorm, kLearnedNumbers };

class LearnedHook final : public Hook {
 public:
  explicit LearnedHook(std::shared_ptr<const LearnedModel> model) : model_(std::move(model)) {}
  std::unique_ptr<Hook> clone() const override { return std::make_unique<LearnedHook>(*this); }

  void evict(HookLayer& layer) override {
    const LearnedLayer& learned = model_->layers[static_cast<std::size_t>(layer.layer())];
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (head.held() <= head.budget()) continue;
      features_.begin(head, layer.position());
      scores_.assign(static_cast<std::size_t>(head.slots()), 0);
      for (std::size_t i = 0; i < features_.candidates().size(); ++i) {
        const int slot = features_.candidates()[i];
        scores_[static_cast<std::size_t>(slot)] = predict(learned, features_.of(head, i, norms_of(head, slot)));
      }
      evict_lowest(head, scores_, head.budget(), victims_);
    }
  }

 private:
  TokenNorms norms_of(HookHead& head, int slot) {
    if (head.number(slot, kKeyNorm) == 0) {
      const TokenNorms norms = read_norms(head, slot, vector_);
      head.set_number(slot, kKeyNorm, norms.key);
      head.set_number(slot, kValueNorm, norms.value);
    }
    return {head.number(slot, kKeyNorm), head.number(slot, kValueNorm)};
  }

  std::shared_ptr<const LearnedModel> model_;
  TokenFeatures features_;
  std::vector<float> vector_;
  std::vector<float> scores_;
  std::vector<int> victims_;
};

class Learned final : public HookFactory {
 public:
  std::string_view name() const override { return "learned"; }
  HookNeeds needs() const override { return {.last_rows = 1, .keys_values = true, .numbers = kLearnedNumbers}; }
  std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<LearnedHook>(model_); }
  Status check(const ModelInfo* model) const override {
    if (model_ == nullptr)
      return fail(ErrorKind::bad_input, "learned needs model=FILE, which a2sf tune --learn TEXT makes");
    if (model == nullptr) return {};
    if (model_->model_hash != model->hash) {
      return fail(ErrorKind::bad_input,
                  fmt::format("'{}' was learned on another model: make one with a2sf tune -m MODEL "
                              "--learn TEXT",
                              file_));
    }
    if (std::ssize(model_->layers) == model->layers) return {};
    return fail(ErrorKind::bad_input, fmt::format("'{}' has scores of {} layers, this model has {}", file_,
                                                  model_->layers.size(), model->layers));
  }
  bool was_tuned_on(std::string_view text_hash) const override {
    return model_ != nullptr && has_text(model_->texts, text_hash);
  }
  std::string file_text() const override { return model_ == nullptr ? "" : to_json(*model_); }
  Result<std::shared_ptr<const HookFactory>> with(std::string_view option, std::string_view value) const override {
    if (option != "model") return HookFactory::with(option, value);
    auto model = read_learned_model(std::string(value));
    if (!model) return tl::unexpected(model.error());
    auto changed = std::make_shared<Learned>();
    changed->file_ = value;
    changed->model_ = std::make_shared<const LearnedModel>(std::move(*model));
    return changed;
  }
  std::string options() const override { return file_.empty() ? "" : ":model=" + file_; }

 private:
  std::string file_;
  std::shared_ptr<const LearnedModel> model_;
};

}  // namespace

std::shared_ptr<const HookFactory> learned() { return std::make_shared<Learned>(); }

}  // namespace a2sf
