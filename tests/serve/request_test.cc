// Bodies of requests: what is taken, and what is refused by which name.
#include "serve/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "serve/cache_choice.h"

namespace a2sf::serve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ServeRequest completion(const std::string& fields) {
  return parse_request(Endpoint::completion, R"({"prompt": "Hi", )" + fields + "}", {}).value();
}

RequestError error_of(Endpoint endpoint, const std::string& body) {
  const auto request = parse_request(endpoint, body, {});
  return request ? RequestError{Refusal::failed, "no error"} : request.error();
}

std::string param_of(const std::string& field, const std::string& value) {
  return error_of(Endpoint::completion, R"({"prompt": "Hi", ")" + field + "\": " + value + "}").param;
}

std::string members(int count, const std::string& value) {
  std::string all;
  for (int i = 0; i < count; ++i) all += (i == 0 ? "\"" : ", \"") + std::to_string(i) + "\": " + value;
  return "{" + all + "}";
}

TEST(Request, ObjectsOfManyMembersAreRefused) {
  EXPECT_EQ(param_of("logit_bias", members(1024, "1")), "");
  EXPECT_EQ(param_of("logit_bias", members(1025, "1")), "logit_bias");
  EXPECT_THAT(error_of(Endpoint::completion, R"({"prompt": "Hi", "x": )" + members(5000, "1") + "}").message,
              HasSubstr("more than 4096 members"));
}

TEST(Request, EveryFieldIsTaken) {
  const ServeRequest request = completion(
      R"("model": "m", "max_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "min_p": 0.125, "seed": -1,
         "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.5, "logit_bias": {"5": -2.5}, "n": 2,
         "stop": ["x", "y"], "ignore_eos": true, "logprobs": 4, "echo": true, "stream": true,
         "stream_options": {"include_usage": true})");
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(request.max_tokens, 7U);
  EXPECT_EQ(request.sampler.temperature, 0.5F);
  EXPECT_EQ(request.sampler.top_p, 0.25F);
  EXPECT_EQ(request.sampler.top_k, 3);
  EXPECT_EQ(request.sampler.min_p, 0.125F);
  EXPECT_EQ(request.sampler.presence_penalty, 1.0F);
  EXPECT_EQ(request.sampler.frequency_penalty, -1.0F);
  EXPECT_EQ(request.sampler.repeat_penalty, 1.5F);
  ASSERT_EQ(request.sampler.logit_bias.size(), 1U);
  EXPECT_EQ(request.sampler.logit_bias[0].token, 5);
  EXPECT_EQ(request.sampler.logit_bias[0].bias, -2.5F);
  EXPECT_EQ(request.seed, 0xffffffffU);
  EXPECT_EQ(request.choices, 2U);
  EXPECT_THAT(*request.stop, ElementsAre("x", "y"));
  EXPECT_EQ(request.logprobs, 4U);
  EXPECT_TRUE(request.ignore_eos && request.echo && request.stream && request.include_usage);
  EXPECT_EQ(request.unknown_fields, 0U);
}

TEST(Request, WhatIsNotSaidIsTheServers) {
  const auto request = parse_request(Endpoint::completion, R"({"prompt": "Hi", "top_p": null, "stop": null})",
                                     {.temperature = 0.75F, .top_k = 9, .top_p = 0.5F});
  ASSERT_TRUE(request);
  EXPECT_EQ(request->sampler.temperature, 0.75F);
  EXPECT_EQ(request->sampler.top_k, 9);
  EXPECT_EQ(request->sampler.top_p, 0.5F);
  EXPECT_FALSE(request->stop || request->seed || request->max_tokens || request->logprobs || request->stream);
}

TEST(Request, PromptsAreTextsTokensOrListsOfThem) {
  const auto prompts = [](const std::string& json) {
    return parse_request(Endpoint::completion, "{\"prompt\": " + json + "}", {}).value().prompts;
  };
  const Prompt text = "a", tokens = std::vector<Token>{1, 2};
  EXPECT_THAT(prompts(R"("a")"), ElementsAre(text));
  EXPECT_THAT(prompts("[1, 2]"), ElementsAre(tokens));
  EXPECT_THAT(prompts(R"(["a", [1, 2]])"), ElementsAre(text, tokens));
  for (const char* wrong : {"1", "{}", "[]", "[[]]", "[1, \"a\"]", "[-1]", "[1.5]", "[2147483648]", "[[[1]]]", "null"})
    EXPECT_EQ(error_of(Endpoint::completion, std::string("{\"prompt\": ") + wrong + "}").param, "prompt") << wrong;
}

TEST(Request, MessagesAreTextOrParts) {
  const auto chat = [](const std::string& messages) {
    return parse_request(Endpoint::chat, "{\"messages\": [" + messages + "]}", {});
  };
  const auto request = chat(R"({"role": "developer", "content": "Be brief."},
                               {"role": "user", "content": [{"type": "text", "text": "a"},
                                                            {"type": "text", "text": "b"}]})");
  ASSERT_TRUE(request);
  EXPECT_EQ(request->messages[0].role, "system");
  EXPECT_EQ(request->messages[1].content, "ab");
  EXPECT_EQ(chat(R"({"role": "ghost", "content": "x"})").error().param, "messages[0].role");
  EXPECT_EQ(chat(R"({"role": "user", "content": "x"}, {"role": "user"})").error().param, "messages[1].content");
  EXPECT_EQ(chat(R"({"role": "user", "content": [{"type": "image_url", "text": "x"}]})").error().param,
            "messages[0].content");
  EXPECT_EQ(chat("").error().param, "messages");
  EXPECT_EQ(chat("7").error().param, "messages[0].role");
}

TEST(Request, WrongTypesAndRangesNameTheField) {
  for (const char* field : {"temperature", "top_p", "min_p", "top_k", "seed", "n", "max_tokens", "logprobs",
                            "presence_penalty", "frequency_penalty", "repetition_penalty", "priority"}) {
    for (const char* wrong : {"\"1\"", "true", "[]", "{}", "-1e300", "1e300", "-1e19"})
      EXPECT_EQ(param_of(field, wrong), field) << wrong;
  }
  for (const char* field : {"echo", "stream", "ignore_eos"}) EXPECT_EQ(param_of(field, "1"), field);
  for (const char* field : {"n", "max_tokens", "top_k", "seed", "priority"}) EXPECT_EQ(param_of(field, "1.5"), field);
  EXPECT_EQ(param_of("logit_bias", R"({"x": 1})"), "logit_bias");
  EXPECT_EQ(param_of("logit_bias", R"({"1": 101})"), "logit_bias");
  EXPECT_EQ(param_of("stop", "[1]"), "stop");
  EXPECT_EQ(param_of("stream_options", R"({"include_usage": 1})"), "stream_options");
  for (const char* field : {"tools", "functions"}) EXPECT_EQ(param_of(field, "[1]"), field);
  EXPECT_EQ(param_of("response_format", R"({"type": "json_object"})"), "response_format");
  EXPECT_EQ(param_of("a2sf", "[]"), "a2sf");
  EXPECT_EQ(error_of(Endpoint::completion, R"({"prompt": ["a", "b"], "n": 200})").param, "n");
}

TEST(Request, BodiesThatAreNoObjectOfJson) {
  const std::string deep(100000, '['), invalid = "{\"prompt\": \"\xC3\x28\"}";
  for (const std::string& body : {std::string(), std::string("{"), std::string("[]"), std::string("NaN"), invalid,
                                  std::string(R"({"prompt": "\ud800"})"), std::string(R"({"prompt": 1e999})")})
    EXPECT_THAT(error_of(Endpoint::completion, body).message, HasSubstr("JSON")) << body;
  EXPECT_THAT(error_of(Endpoint::completion, deep).message, HasSubstr("nested deeper"));
  EXPECT_TRUE(parse_request(Endpoint::completion, "{\"prompt\": \"" + deep + "\"}", {}));
}

TEST(Request, UnknownFieldsAreCounted) {
  EXPECT_EQ(completion(R"("user": "u", "a2sf": {"x": 1}, "stream_options": {"y": 2})").unknown_fields, 3U);
}

class CacheChoiceTest : public testing::Test {
 protected:
  Parsed<ChosenPolicy> choose(const std::string& fields, std::int64_t pin = 0) const {
    const auto request = parse_request(Endpoint::completion, R"({"prompt": "Hi", "a2sf": {)" + fields + "}}", {});
    if (!request) return tl::unexpected(request.error());
    return choose_policy(request->cache, defaults_, pin, 0);
  }
  std::string text(const std::string& fields, std::int64_t pin = 0) const { return choose(fields, pin).value().text; }

  CacheDefaults defaults_{
      "a2sf:power=1.5",
      {{"budget", "300"}},
      "even",
      {{"even", nullptr}, {"own", std::make_shared<const Profile>(Profile{.tables = {{.shares = {{2, 1}, {1, 1}}}}})}}};
};

TEST_F(CacheChoiceTest, ARequestChangesWhatItNames) {
  EXPECT_EQ(text(""), "a2sf:power=1.5:budget=300");
  EXPECT_EQ(text(R"("budget": 64, "alpha": 0.5)"), "a2sf:alpha=0.5:power=1.5:budget=64");
  EXPECT_EQ(text(R"("policy": "h2o", "sink": 2, "recent": 0.25)"), "h2o:budget=300:sink=2:recent=25%");
  EXPECT_EQ(text(R"("policy": "h2o:budget=7", "block": "prompt")"), "h2o:budget=7:block=prompt");
  EXPECT_EQ(text(R"("pin": 5)"), "a2sf:power=1.5:budget=300:pin=5");
  EXPECT_EQ(text("", 9), "a2sf:power=1.5:budget=300:pin=9");
  EXPECT_EQ(text(R"("policy": "full")"), "full");
}

TEST_F(CacheChoiceTest, ProfilesAreThoseOfTheServerByName) {
  EXPECT_EQ(choose("")->spec.profile(), nullptr);
  EXPECT_NE(choose(R"("profile": "own")")->spec.profile(), nullptr);
  EXPECT_EQ(choose(R"("profile": "own")")->profile, "own");
  EXPECT_EQ(choose(R"("profile": "own", "policy": "full")")->profile, "");
  EXPECT_EQ(choose(R"("profile": "none")")->spec.profile(), nullptr);
  EXPECT_EQ(choose(R"("profile": "/etc/passwd")").error().param, "a2sf.profile");
}

TEST_F(CacheChoiceTest, NoFileIsReadAndNoNonsenseTaken) {
  for (const char* policy : {"a2sf:profile=/etc/passwd", "a2sf:classes=x", "learned:model=/etc/passwd",
                             "a2sf:budget=@x", "a2sf:frobnicate=1", "a2sf:", "a2sf::sink=1"})
    EXPECT_EQ(choose(std::string("\"policy\": \"") + policy + "\"").error().param, "a2sf.policy") << policy;
  EXPECT_EQ(choose(R"("policy": "nonsense")").error().param, "a2sf");
  EXPECT_EQ(choose(R"("policy": "a2sf:budget=0.2")").error().param, "a2sf.budget");
  for (const char* option : {"budget", "alpha", "sink", "recent", "block", "pin"}) {
    for (const char* wrong : {"-1", "1e300", "\"@x\"", "true", "[]"})
      EXPECT_EQ(choose(std::string("\"") + option + "\": " + wrong).error().param, std::string("a2sf.") + option)
          << wrong;
  }
  EXPECT_EQ(choose(R"("alpha": 1.5)").error().param, "a2sf");
}

}  // namespace
}  // namespace a2sf::serve
