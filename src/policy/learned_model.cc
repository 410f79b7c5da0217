#include "policy/learned_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/text_file.h"
#include "policy/json_members.h"

namespace a2sf {
namespace {

constexpr const char* kLearnedFormat = "a2sf-learned-1";
constexpr std::size_t kMostUnits = 64;
// So far from 1 that sums of products with features stay finite in floats.
constexpr double kMostWeight = 1e6;

// As many finite numbers as `count`.
Status read_numbers(const Json& json, std::string_view key, std::size_t count, float* numbers) {
  const auto is_number = [](const Json& each) { return each.is_number(); };
  if (!json.is_array() || json.size() != count || !std::all_of(json.begin(), json.end(), is_number))
    return malformed(fmt::format("\"{}\" should be a list of {} numbers", key, count));
  for (const Json& each : json) {
    const auto number = each.get<double>();
    if (!(std::abs(number) <= kMostWeight))
      return malformed(fmt::format("{} {} is not from {} to {}", key, number, -kMostWeight, kMostWeight));
    *numbers++ = static_cast<float>(number);
  }
  return {};
}

Status read_hidden(const Json& json, LearnedLayer& layer) {
  const Json& hidden = member(json, "hidden");
  if (hidden.is_null()) return {};
  if (!hidden.is_array() || hidden.empty() || hidden.size() > kMostUnits)
    return malformed(fmt::format("\"hidden\" should be 1 to {} units", kMostUnits));
  layer.hidden.resize(hidden.size());
  layer.bias.resize(hidden.size());
  for (std::size_t unit = 0; unit < hidden.size(); ++unit) {
    if (auto read = read_numbers(hidden[unit], "hidden", kFeatures, layer.hidden[unit].data()); !read) return read;
  }
  return read_numbers(member(json, "bias"), "bias", layer.bias.size(), layer.bias.data());
}

Status read_layer(const Json& json, LearnedLayer& layer) {
  if (auto read = read_numbers(member(json, "mean"), "mean", kFeatures, layer.mean.data()); !read) return read;
  if (auto read = read_numbers(member(json, "deviation"), "deviation", kFeatures, layer.deviation.data()); !read)
    return read;
  const auto smallest = *std::min_element(layer.deviation.begin(), layer.deviation.end());
  if (smallest < 1 / kMostWeight) return malformed(fmt::format("deviation {} is not above 0", smallest));
  if (auto read = read_hidden(json, layer); !read) return read;
  layer.output.resize(layer.hidden.empty() ? layer.mean.size() : layer.hidden.size());
  return read_numbers(member(json, "output"), "output", layer.output.size(), layer.output.data());
}

Json layer_json(const LearnedLayer& layer) {
  Json json = {{"mean", layer.mean}, {"deviation", layer.deviation}};
  if (!layer.hidden.empty()) json.update({{"hidden", layer.hidden}, {"bias", layer.bias}});
  json["output"] = layer.output;
  return json;
}

}  // namespace

float predict(const LearnedLayer& layer, const Features& features) {
  Features x;
  for (std::size_t f = 0; f < x.size(); ++f) x[f] = (features[f] - layer.mean[f]) / layer.deviation[f];
  const auto product = [&](const auto& weights) {
    float sum = 0;
    for (std::size_t f = 0; f < x.size(); ++f) sum += weights[f] * x[f];
    return sum;
  };
  if (layer.hidden.empty()) return product(layer.output);
  float sum = 0;
  for (std::size_t unit = 0; unit < layer.hidden.size(); ++unit)
    sum += layer.output[unit] * std::max(0.0F, layer.bias[unit] + product(layer.hidden[unit]));
  return sum;
}

Result<LearnedModel> parse_learned_model(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (text_of(json, "format") != kLearnedFormat)
    return malformed(fmt::format("it should hold {{\"format\": \"{}\", ...}}", kLearnedFormat));
  if (member(json, "features") != Json(kFeatureNames))
    return malformed(fmt::format("its \"features\" are not {}", Json(kFeatureNames).dump()));
  LearnedModel model;
  const Json& layers = member(json, "layers");
  if (!layers.is_array() || layers.empty()) return malformed("\"layers\" should be a list of one object per layer");
  for (const Json& layer : layers) {
    if (auto read = read_layer(layer, model.layers.emplace_back()); !read)
      return malformed(fmt::format("layer {}: {}", model.layers.size() - 1, read.error().message));
  }
  model.model = text_of(json, "model");
  model.model_hash = text_of(json, "model_hash");
  if (model.model_hash.empty()) return malformed("\"model_hash\" should say which model it was learned on");
  model.texts = texts_of(json);
  return model;
}

Result<LearnedModel> read_learned_model(const std::string& path) {
  const auto text = read_text_file(path, "learned model");
  if (!text) return tl::unexpected(text.error());
  auto model = parse_learned_model(*text);
  if (!model) return fail(model.error().kind, fmt::format("'{}' is no learned model: {}", path, model.error().message));
  return model;
}

std::string to_json(const LearnedModel& model) {
  Json json = {{"format", kLearnedFormat}, {"features", kFeatureNames}, {"model", model.model}};
  json["model_hash"] = model.model_hash;
  add_texts(json, model.texts);
  for (const LearnedLayer& layer : model.layers) json["layers"].push_back(layer_json(layer));
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace a2sf
