// The file of a learned score: what is written is read, what does not fit is said in one line.
#include "policy/learned_model.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace a2sf {
namespace {

using Json = nlohmann::ordered_json;

LearnedModel perceptron() {
  LearnedModel model{.layers = {}, .model = "m", .model_hash = "77", .texts = {{"a", "12"}}};
  model.layers.push_back(
      {{1, 2, 3, 4, 5, 6}, {1, 2, 1, 2, 1, 2}, {{1, 0, 0, 0, 0, 0}, {0, 1, 0, 0, 0, 0}}, {0.5F, -2}, {3, 4}});
  return model;
}

std::string error_of(const std::string& json) {
  const auto model = parse_learned_model(json);
  EXPECT_FALSE(model) << json;
  return model ? "" : model.error().message;
}

// The perceptron's file with something else at a place in it.
std::string error_at(const std::string& place, const Json& other) {
  Json json = Json::parse(to_json(perceptron()));
  json[Json::json_pointer(place)] = other;
  return error_of(json.dump());
}

TEST(LearnedModel, IsReadAsItWasWritten) {
  const LearnedModel model = parse_learned_model(to_json(perceptron())).value();
  EXPECT_EQ(to_json(model), to_json(perceptron()));
  EXPECT_EQ(model.texts.front().hash, "12");
}

TEST(LearnedModel, PredictsByHand) {
  const LearnedLayer layer = perceptron().layers.front();
  EXPECT_FLOAT_EQ(predict(layer, {2, 8, 3, 4, 5, 6}), 3 * (0.5F + 1) + 4 * (3 - 2));
  EXPECT_FLOAT_EQ(predict(layer, {-9, 0, 3, 4, 5, 6}), 0) << "both units are below 0";
  const LearnedLayer linear{layer.mean, layer.deviation, {}, {}, {1, 1, 1, 0, 0, 2}};
  EXPECT_FLOAT_EQ(predict(linear, {2, 8, 3, 4, 5, 10}), 1 + 3 + 0 + 4);
}

TEST(LearnedModel, SaysWhatDoesNotFit) {
  EXPECT_EQ(error_of(""), "it should hold {\"format\": \"a2sf-learned-1\", ...}");
  EXPECT_EQ(error_of("[]"), error_of(""));
  EXPECT_EQ(error_at("/format", "a2sf-learned-2"), error_of(""));
  EXPECT_EQ(error_at("/features", {"age"}),
            "its \"features\" are not [\"attention\",\"last\",\"age\",\"key norm\",\"value norm\",\"rank\"]");
  EXPECT_EQ(error_at("/model_hash", nullptr), "\"model_hash\" should say which model it was learned on");
  EXPECT_EQ(error_at("/layers", Json::array()), "\"layers\" should be a list of one object per layer");
  EXPECT_EQ(error_at("/layers/0", 7), "layer 0: \"mean\" should be a list of 6 numbers");
  EXPECT_EQ(error_at("/layers/0/mean", {1, 2}), "layer 0: \"mean\" should be a list of 6 numbers");
  EXPECT_EQ(error_at("/layers/0/mean/1", nullptr), "layer 0: \"mean\" should be a list of 6 numbers");
  EXPECT_EQ(error_at("/layers/0/output/1", 1e30), "layer 0: output 1e+30 is not from -1000000 to 1000000");
  EXPECT_EQ(error_at("/layers/0/deviation/2", 0), "layer 0: deviation 0 is not above 0");
  EXPECT_EQ(error_at("/layers/0/hidden", Json::array()), "layer 0: \"hidden\" should be 1 to 64 units");
  EXPECT_EQ(error_at("/layers/0/hidden/1", {1}), "layer 0: \"hidden\" should be a list of 6 numbers");
  EXPECT_EQ(error_at("/layers/0/bias", {1}), "layer 0: \"bias\" should be a list of 2 numbers");
  EXPECT_EQ(error_at("/layers/0/output", {1, 2, 3}), "layer 0: \"output\" should be a list of 2 numbers");
}

TEST(LearnedModel, AFileIsNamed) {
  EXPECT_NE(read_learned_model("/no/such.json").error().message.find("/no/such.json"), std::string::npos);
}

}  // namespace
}  // namespace a2sf
