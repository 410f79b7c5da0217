// A tiny model with a vocabulary of bytes, and jobs for it.
#pragma once

#include <a2sf/model.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "serve/job.h"
#include "serve/metrics.h"
#include "support/tiny_model.h"
#include "text/tiny_vocabulary.h"

namespace a2sf::serve {

class TinyServer : public testing::Test {
 protected:
  static std::shared_ptr<const Model> load_model() {
    const std::string path =
        write_tiny_model({.vocabulary = static_cast<int>(test::tiny_tokens().size())}, temporary_path("serve.gguf"));
    auto model = Model::load(path, {.threads = 1, .isa = {}}).value();
    std::filesystem::remove(path);
    return model;
  }
  static Tokenizer load_tokenizer() {
    const test::TemporaryFile file;
    test::write_tiny_vocabulary(file.path());
    return Tokenizer::load(file.path()).value();
  }

  static std::vector<Token> prompt_of(std::size_t tokens, Token first = 3) {
    std::vector<Token> prompt = {1};
    while (prompt.size() < tokens) prompt.push_back(3 + (first + static_cast<Token>(prompt.size()) * 37) % 256);
    return prompt;
  }

  // Drawn at random: texts differ from seed to seed.
  Job job_of(std::vector<Token> prompt, std::size_t tokens, const std::string& policy = "a2sf:budget=24",
             std::uint32_t seed = 1) const {
    Job job{.policy = parse_policy(policy).value(),
            .sampler = {.temperature = 1, .top_k = 0, .seed = seed},
            .generate = {.tokens = tokens, .stop = {}}};
    const auto most = static_cast<std::int64_t>(prompt.size() + tokens);
    const auto cost = cache_cost(model_->info(), {.policy = job.policy, .most_tokens = most}, most);
    job.prompts.push_back({std::move(prompt), cost.value()});
    return job;
  }

  const std::shared_ptr<const Model> model_ = load_model();
  const Tokenizer tokenizer_ = load_tokenizer();
  Metrics metrics_{"tiny", 1U << 30U};
};

}  // namespace a2sf::serve
