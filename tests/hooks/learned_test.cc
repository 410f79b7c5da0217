// learned, victim by victim: the features and both kinds of model from their definitions.
#include <cmath>
#include <fstream>

#include "hooks/lowest_first_support.h"
#include "policy/learned_model.h"

namespace a2sf::test {
namespace {

// Of a tiny model, as if it was learned on it. Weights without a pattern, the same in each run: powers of two keep sums
// in floats and doubles in the same order.
LearnedModel model_of(const Model& tiny, std::size_t units) {
  std::mt19937 random(5);
  const auto weight = [&] { return static_cast<float>(static_cast<int>(random() % 65) - 32) / 32; };
  LearnedModel model;
  model.model_hash = tiny.info().hash;
  for (int i = 0; i < tiny.info().layers; ++i) {
    LearnedLayer& layer = model.layers.emplace_back();
    for (float& x : layer.mean) x = weight();
    for (float& x : layer.deviation) x = 0.5F + std::abs(weight());
    layer.hidden.resize(units);
    layer.bias.resize(units);
    layer.output.resize(units == 0 ? static_cast<std::size_t>(kFeatures) : units);
    for (Features& unit : layer.hidden) std::generate(unit.begin(), unit.end(), weight);
    std::generate(layer.bias.begin(), layer.bias.end(), weight);
    std::generate(layer.output.begin(), layer.output.end(), weight);
  }
  return model;
}

std::string written(const LearnedModel& model, const std::string& name) {
  const std::string path = temporary_path(name);
  std::ofstream(path) << to_json(model);
  return path;
}

double log_of(double x) { return std::log(std::max(x, 1e-6)); }

double share_with_less(const HookHead& head, int slot) {
  double less = 0, candidates = 0;
  for_each_held(head, [&](int other) {
    if (!head.may_go(other)) return;
    ++candidates;
    if (head.score(other) < head.score(slot)) ++less;
  });
  return less / std::max(1.0, candidates - 1);
}

std::vector<double> features_of(const HookLayer& layer, const HookHead& head, int slot) {
  double last = 0, squares = 0, sum = 0;
  for (int g = 0; g < kGroup; ++g) last += head.probabilities(0, g)[static_cast<std::size_t>(slot)] / kGroup;
  for (const float x : key_of(head, slot)) squares += static_cast<double>(x) * x;
  for (const float x : value_of(head, slot)) sum += std::abs(x);
  return {
      log_of(head.score(slot)),   log_of(last), log_of(static_cast<double>(layer.position() - head.position(slot) + 1)),
      log_of(std::sqrt(squares)), log_of(sum),  share_with_less(head, slot)};
}

double prediction(const LearnedLayer& layer, std::vector<double> x) {
  for (std::size_t f = 0; f < x.size(); ++f) x[f] = (x[f] - layer.mean[f]) / layer.deviation[f];
  const auto product = [&](const auto& weights) {
    return std::inner_product(x.begin(), x.end(), weights.begin(), 0.0);
  };
  if (layer.hidden.empty()) return product(layer.output);
  double sum = 0;
  for (std::size_t unit = 0; unit < layer.hidden.size(); ++unit)
    sum += layer.output[unit] * std::max(0.0, layer.bias[unit] + product(layer.hidden[unit]));
  return sum;
}

RuleOfHead predicted_by(const LearnedModel& model) {
  return [model](const HookLayer& layer, int kv_head) {
    const HookHead& head = layer.head(kv_head);
    std::map<int, double> scores;
    for_each_held(head, [&](int slot) {
      scores[head.position(slot)] =
          prediction(model.layers[static_cast<std::size_t>(layer.layer())], features_of(layer, head, slot));
    });
    return scores;
  };
}

class Learned : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Learned);

TEST_P(Learned, TheLeastPredictedGoes) {
  for (const std::size_t units : {0, 16}) {
    const auto llama = model(), gemma = model("gemma3");
    const LearnedModel of_llama = model_of(*llama, units), of_gemma = model_of(*gemma, units);
    const std::string llama_file = written(of_llama, "learned-llama.json");
    const std::string gemma_file = written(of_gemma, "learned-gemma.json");
    for (const char* options : {"budget=12:block=1", "budget=10:block=7:sink=2:pin=3:recent=2", "budget=20:recent=0"}) {
      SCOPED_TRACE(options);
      Replay replay(parse_policy("learned:model=" + llama_file + ":" + options).value(), llama, predicted_by(of_llama));
      replay.feed(random_tokens(90), 64);
      replay.expect_same();
    }
    Replay replay(parse_policy("learned:budget=8:block=3:model=" + gemma_file).value(), gemma, predicted_by(of_gemma));
    replay.feed(random_tokens(60), 60);
    replay.expect_same();
  }
}

TEST_P(Learned, ForksResizesAndTakesAnyChunks) {
  const std::string policy = "learned:budget=12:block=5:model=" + written(model_of(*model(), 16), "learned-forks.json");
  expect_same_bytes_in_chunks_and_forks(GetParam(), policy);
  expect_resizes(GetParam(), policy);
}

TEST(LearnedText, NeedsAModelThatFits) {
  const auto llama = tiny(all_devices().front());
  const LearnedModel fits = model_of(*llama, 0);
  LearnedModel other = fits, shorter = fits;
  other.model_hash = "0123456789abcdef";
  shorter.layers.pop_back();
  const std::string others = written(other, "learned-other.json"), cut = written(shorter, "learned-shorter.json");
  expect_prints_as("learned:model=" + cut + ":budget=9", "learned:budget=9:model=" + cut);
  expect_refused("learned:norm=1", "learned has no option 'norm'");
  const auto refused = [&](const std::string& text) {
    return Session::create(llama, {parse_policy(text).value()}).error().message;
  };
  EXPECT_EQ(refused("learned:budget=9"), "learned needs model=FILE, which a2sf tune --learn TEXT makes");
  EXPECT_EQ(refused("learned:budget=9:model=" + others),
            "'" + others + "' was learned on another model: make one with a2sf tune -m MODEL --learn TEXT");
  EXPECT_EQ(refused("learned:budget=9:model=" + cut), "'" + cut + "' has scores of 1 layers, this model has 2");
}

TEST(LearnedText, KnowsItsTexts) {
  LearnedModel model = model_of(*tiny(all_devices().front()), 0);
  model.texts = {{"a.txt", "0123"}};
  const auto spec = parse_policy("learned:model=" + written(model, "learned-texts.json")).value();
  const auto& factory = *std::get<Hooked>(spec.score).factory;
  EXPECT_TRUE(factory.was_tuned_on("0123"));
  EXPECT_FALSE(factory.was_tuned_on("4567"));
}

}  // namespace
}  // namespace a2sf::test
