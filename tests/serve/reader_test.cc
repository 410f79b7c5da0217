// From bodies to jobs, and from events to documents.
#include "serve/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "serve/tiny_server.h"

namespace a2sf::serve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ReaderTest : public TinyServer {
 protected:
  RequestReader reader(std::uint64_t memory = 1U << 30U, bool has_priorities = false) {
    ReaderOptions options;
    options.model_name = "tiny";
    options.cache.options = {{"budget", "24"}};
    options.seed = 5;
    options.stop = {"END"};
    options.memory = memory;
    options.has_priorities = has_priorities;
    return {options, model_->info(), tokenizer_, metrics_};
  }
  Parsed<ReadRequest> read(const std::string& body) { return reader().read(Endpoint::completion, body); }
};

TEST_F(ReaderTest, AJobHasTheTokensAndWhatTheyCost) {
  const auto request = read(R"({"prompt": [[1, 2, 3], "hi"], "n": 2, "max_tokens": 5})");
  ASSERT_TRUE(request);
  const Job& job = request->job;
  EXPECT_EQ(job.sequences(), 4U);
  EXPECT_THAT(job.prompts[0].tokens, ElementsAre(1, 2, 3));
  EXPECT_EQ(job.prompts[1].tokens, tokenizer_.encode("hi", true, true).value());
  EXPECT_EQ(job.prompts[0].cost, cache_cost(model_->info(), {.policy = job.policy, .most_tokens = 8}, 8).value());
  EXPECT_EQ(job.generate.tokens, 5U);
  EXPECT_EQ(job.sampler.seed, 5U);
  EXPECT_THAT(job.generate.stop, ElementsAre("END"));
}

TEST_F(ReaderTest, PrioritiesAreTakenWhereTheServerHasThem) {
  EXPECT_EQ(read(R"({"prompt": "x", "priority": 1})").error().param, "priority");
  EXPECT_TRUE(read(R"({"prompt": "x", "priority": 0})"));
  EXPECT_EQ(reader(1U << 30U, true).read(Endpoint::completion, R"({"prompt": "x", "priority": -3})")->job.priority, -3);
}

TEST_F(ReaderTest, WhatNoModelCanDoIsRefused) {
  EXPECT_EQ(read(R"({"prompt": "x", "model": "other"})").error().refusal, Refusal::not_found);
  EXPECT_EQ(read(R"({"prompt": [262]})").error().param, "prompt");
  EXPECT_EQ(read(R"({"prompt": "x", "max_tokens": 4096})").error().code, "context_length_exceeded");
  EXPECT_EQ(read(R"({"prompt": "x", "logit_bias": {"262": 1}})").error().param, "logit_bias");
  EXPECT_EQ(read(R"({"prompt": "x", "a2sf": {"sink": 30}})").error().param, "a2sf");
  EXPECT_EQ(reader().read(Endpoint::chat, R"({"messages": [{"role": "user", "content": "x"}]})").error().param,
            "messages");  // there is no template
}

TEST_F(ReaderTest, ACacheBeyondTheMemoryIsRefusedWithTheLargestBudgetThatFits) {
  const std::string body = R"({"prompt": "x", "max_tokens": 2000, "a2sf": {"budget": 1500}})";
  const auto cost = [&](std::int64_t budget) {
    const auto spec = parse_policy("a2sf:budget=" + std::to_string(budget)).value();
    const auto tokens = static_cast<std::int64_t>(tokenizer_.encode("x", true, true)->size()) + 2000;
    return cache_cost(model_->info(), {.policy = spec, .most_tokens = tokens}, tokens).value();
  };
  const RequestError error = reader(cost(100)).read(Endpoint::completion, body).error();
  EXPECT_EQ(error.code, "cache_too_large");
  const std::string words = "a budget of ";
  const std::int64_t budget = std::stoll(error.message.substr(error.message.find(words) + words.size()));
  EXPECT_LE(cost(budget), cost(100));
  EXPECT_GT(cost(budget + 1), cost(100));
}

TEST_F(ReaderTest, AnIgnoredEndIsNeverDrawn) {
  const auto request = read(R"({"prompt": "x", "ignore_eos": true})");
  std::vector<Token> banned;
  for (const auto& [token, bias] : request->job.sampler.logit_bias) banned.push_back(token);
  EXPECT_THAT(banned, testing::Contains(2));
  for (const Token token : banned) EXPECT_TRUE(tokenizer_.is_end_of_generation(token));
}

TEST_F(ReaderTest, AViewIsToldInAStreamAndOfWhatCanBeFollowed) {
  EXPECT_FALSE(read(R"({"prompt": "x", "stream": true})")->job.is_viewed);
  const auto request = read(R"({"prompt": "x", "stream": true, "a2sf": {"view": true}})");
  EXPECT_TRUE(request->job.is_viewed);
  EXPECT_EQ(request->form.view["layers"], model_->info().layers);
  EXPECT_GE(request->form.view["full_bytes"].get<std::uint64_t>(),
            request->form.view["most_bytes"].get<std::uint64_t>());
  for (const char* body : {R"({"prompt": "x", "a2sf": {"view": true}})",
                           R"({"prompt": ["x", "y"], "stream": true, "a2sf": {"view": true}})",
                           R"({"prompt": "x", "stream": true, "a2sf": {"view": true, "policy": "a2sf:cold=all"}})"})
    EXPECT_EQ(read(body).error().param, "a2sf.view");
  EXPECT_EQ(read(R"({"prompt": "x", "a2sf": {"view": 1}})").error().param, "a2sf.view");
}

TEST_F(ReaderTest, TokensAndTextsInTheShapesOfBothServers) {
  const RequestReader reader = this->reader();
  const auto plain = tokenizer_.encode("hi", false, true).value(), begun = tokenizer_.encode("hi", true, true).value();
  EXPECT_EQ(reader.tokenize(R"({"content": "hi"})")->at("tokens"), Json(plain));
  EXPECT_EQ(reader.tokenize(R"({"prompt": "hi"})")->at("tokens"), Json(begun));
  EXPECT_EQ(reader.tokenize(R"({"prompt": "hi", "add_special_tokens": false})")->at("count"), plain.size());
  EXPECT_EQ(reader.detokenize(R"({"tokens": [260, 36]})")->at("content"), " hi!");
  EXPECT_EQ(reader.detokenize(R"({"tokens": [262]})").error().param, "tokens");
}

// ---- replies

std::vector<Json> chunks_of(std::string stream) {
  std::vector<Json> chunks;
  for (std::size_t end; (end = stream.find("\n\n")) != std::string::npos; stream.erase(0, end + 2)) {
    EXPECT_EQ(stream.substr(0, 6), "data: ");
    const std::string data = stream.substr(6, end - 6);
    chunks.push_back(data == "[DONE]" ? Json("DONE") : Json::parse(data));
  }
  return chunks;
}

class ReplyTest : public TinyServer {
 protected:
  static Event event(std::size_t sequence, const std::string& text, bool ends = false) {
    Event event{.sequence = sequence, .text = text};
    if (ends) event.end = SequenceEnd{StopReason::end_of_generation, 10, 2, 5, 6, 100};
    return event;
  }
};

TEST_F(ReplyTest, ADocumentComesWithTheLastSequencesEnd) {
  Reply reply({.endpoint = Endpoint::completion, .model = "tiny", .sequences = 4, .choices = 2, .echo = {"A", "B"}},
              tokenizer_, 1);
  for (const std::size_t i : {1, 0, 3}) EXPECT_EQ(reply.take(event(i, std::to_string(i), true)), "");
  EXPECT_EQ(reply.take(event(2, "x")), "");
  const Json document = Json::parse(reply.take(event(2, "y", true)));
  ASSERT_TRUE(reply.done());
  std::vector<std::string> texts;
  for (const Json& choice : document["choices"]) texts.push_back(choice["text"]);
  EXPECT_THAT(texts, ElementsAre("A0", "A1", "Bxy", "B3"));
  EXPECT_EQ(document["usage"]["prompt_tokens"], 20);
  EXPECT_EQ(document["usage"]["completion_tokens"], 8);
  EXPECT_EQ(document["usage"]["a2sf"]["tokens_evicted"], 24);
}

TEST_F(ReplyTest, AStreamsChunksHaveOneIdAndTheUsageIsLast) {
  Reply reply({.endpoint = Endpoint::chat, .model = "tiny", .stream = true, .include_usage = true}, tokenizer_, 7);
  std::string stream = reply.take(event(0, "a"));
  stream += reply.take(event(0, "b"));
  stream += reply.take(event(0, "", true));
  const auto chunks = chunks_of(stream);
  ASSERT_EQ(chunks.size(), 5U);
  EXPECT_EQ(chunks[0]["choices"][0]["delta"], Json({{"content", "a"}, {"role", "assistant"}}));
  EXPECT_EQ(chunks[1]["choices"][0]["delta"], Json({{"content", "b"}}));
  EXPECT_EQ(chunks[1]["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(chunks[2]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chunks[3]["usage"]["total_tokens"], 12);
  EXPECT_EQ(chunks[4], "DONE");
  for (std::size_t i = 1; i < 4; ++i) EXPECT_EQ(chunks[i]["id"], chunks[0]["id"]);
}

TEST_F(ReplyTest, AViewIsAnEventOfItsOwnAndTheFirstSaysOfWhat) {
  Reply reply({.endpoint = Endpoint::chat, .model = "tiny", .stream = true, .view = {{"layers", 2}}}, tokenizer_, 7);
  Event first = event(0, ""), second = event(0, "a");
  first.view = CacheView{.tokens = {3 + 'h', 3 + 0xC3}, .held = {{0, 9}, {}}, .held_tokens = 10, .bytes = 64};
  second.view = CacheView{.gone = {1, 4}, .bytes = 64};
  const std::string named = "event: a2sf.view\ndata: ";
  std::string told = reply.take(first);
  ASSERT_EQ(told.substr(0, named.size()), named);
  EXPECT_EQ(Json::parse(told.substr(named.size())),
            Json::parse(R"({"layers": 2, "index": 0, "tokens": ["h", [195]], "bytes": 64,
                            "held": {"tokens": 10, "places": ["0102", ""]}})"));
  told = reply.take(second);
  ASSERT_EQ(told.substr(0, named.size()), named);
  const std::size_t end = told.find("\n\n") + 2;
  EXPECT_EQ(Json::parse(told.substr(named.size(), end - named.size()))["gone"], Json({1, 4}));
  EXPECT_EQ(chunks_of(told.substr(end))[0]["choices"][0]["delta"], Json({{"content", "a"}, {"role", "assistant"}}));
}

TEST_F(ReplyTest, TokensThatArePartsOfCharactersAreWrittenAsBytes) {
  Reply reply({.endpoint = Endpoint::completion, .model = "tiny", .logprobs = 1}, tokenizer_, 1);
  Event last = event(0, "\xC3\xA9", true);
  for (const Token token : {3 + 0xC3, 3 + 0xA9}) last.tokens.push_back({token, TokenChoice{-0.5, {{token, -0.5}}}});
  const Json scores = Json::parse(reply.take(last))["choices"][0]["logprobs"];
  EXPECT_THAT(scores["tokens"].get<std::vector<std::string>>(), ElementsAre("bytes:\\xc3", "bytes:\\xa9"));
  EXPECT_EQ(scores["top_logprobs"][0], Json({{"bytes:\\xc3", -0.5}}));
  EXPECT_THAT(scores["text_offset"].get<std::vector<int>>(), ElementsAre(0, 1));
}

TEST(Events, OfOneSequenceBecomeOneAndAnErrorStaysTheLast) {
  std::vector<Event> waiting;
  add(waiting, {.sequence = 0, .text = "a"});
  add(waiting, {.sequence = 1, .text = "x"});
  add(waiting, {.sequence = 0, .text = "b", .end = SequenceEnd{StopReason::length}});
  add(waiting, {.error = RequestError{Refusal::failed, "why"}});
  ASSERT_EQ(waiting.size(), 3U);
  EXPECT_EQ(waiting[0].text, "ab");
  EXPECT_TRUE(waiting[0].end);
  EXPECT_EQ(waiting[1].text, "x");
  EXPECT_TRUE(waiting[2].error);
}

TEST(Error, ADocumentHasAllFourFields) {
  const Json error = Json::parse(error_document({Refusal::queue_full, "full \xff"}))["error"];
  EXPECT_EQ(error["type"], "rate_limit_error");
  EXPECT_EQ(error["param"], nullptr);
  EXPECT_EQ(error["code"], nullptr);
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("full"));
}

}  // namespace
}  // namespace a2sf::serve
