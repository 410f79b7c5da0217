// What the hook `learned` scores a token by: for each layer a linear model or a small perceptron over a few features,
// which predicts what the token is about to add to the output: attention times value. Made by `a2sf tune --learn`.
//
// As a file it is a JSON object; keys that are not named here are ignored:
//   {"format": "a2sf-learned-1",
//    "features": ["attention", ...],                what the columns below stand for, in this order
//    "layers": [{"mean": [...], "deviation": [...], of each feature; what a model sees is (x - mean) / deviation
//                "hidden": [[...], ...],            [unit][feature], at most 64 units; left out by a linear model
//                "bias": [...],                     [unit]
//                "output": [...]}, ...],            [unit], or [feature] in a linear model
//    "model": "...", "model_hash": "...",           ModelInfo::name and hash of the model that it was learned on, and
//                                                   serves alone
//    "texts": [{"name": "...", "hash": "..."}]}     what it was learned on: text_hash() of each text
// A constant that a layer's predictions had in common would change no order, so there is none.
//
// It is a file of its own and no part of a profile: a profile belongs to any policy and is taken without being asked
// for, this is an option of one policy.
#pragma once

#include <a2sf/profile.h>
#include <a2sf/result.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

enum Feature { kLogAttention, kLogLast, kLogAge, kLogKeyNorm, kLogValueNorm, kRank, kFeatures };
inline constexpr std::array<const char*, kFeatures> kFeatureNames = {"attention", "last",       "age",
                                                                     "key norm",  "value norm", "rank"};
using Features = std::array<float, kFeatures>;

struct LearnedLayer {
  Features mean = {}, deviation = {1, 1, 1, 1, 1, 1};
  std::vector<Features> hidden = {};  // [unit]; none: linear
  std::vector<float> bias = {};       // [unit]
  std::vector<float> output = {};     // [unit] or [feature]
};

struct LearnedModel {
  std::vector<LearnedLayer> layers;
  std::string model = {}, model_hash = {};
  std::vector<TunedText> texts = {};
};

// output . x, or output . max(0, hidden x + bias), x being the standardised features.
float predict(const LearnedLayer& layer, const Features& features);

// An error names the layer and what is wrong in it.
Result<LearnedModel> parse_learned_model(std::string_view json);
Result<LearnedModel> read_learned_model(const std::string& path);
std::string to_json(const LearnedModel& model);

}  // namespace a2sf
