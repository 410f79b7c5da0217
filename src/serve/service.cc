#include "serve/service.h"

#include <fmt/format.h>

#include <utility>

namespace a2sf::serve {
namespace {

// The number that was written: 0.7, where a float as a double is 0.699999988079071.
Json as_written(float number) { return Json::parse(fmt::format("{}", number)); }

Json sampling_json(const SamplerOptions& sampler) {
  return {{"temperature", as_written(sampler.temperature)},
          {"top_k", sampler.top_k},
          {"top_p", as_written(sampler.top_p)},
          {"min_p", as_written(sampler.min_p)},
          {"repeat_penalty", as_written(sampler.repeat_penalty)}};
}

}  // namespace

Service::Service(const ServiceOptions& options, std::shared_ptr<const Model> model, Tokenizer tokenizer,
                 Scheduler::Notify notify)
    : options_(options),
      model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      metrics_(options.reader.model_name, options.limits.memory),
      reader_(options.reader, model_->info(), tokenizer_, metrics_),
      engine_(model_, tokenizer_, options.limits, metrics_, std::move(notify)) {}

std::string Service::models() const {
  const ModelInfo& info = model_->info();
  Json model = {{"id", options_.reader.model_name},
                {"object", "model"},
                {"created", 0},
                {"owned_by", "a2sf"},
                {"root", info.name},
                {"parent", nullptr},
                {"max_model_len", info.context},
                {"vocabulary", info.vocabulary}};
  return dump({{"object", "list"}, {"data", Json::array({std::move(model)})}});
}

std::string Service::props() const {
  const CacheDefaults& cache = options_.reader.cache;
  const auto chosen = choose_policy({}, cache, 0, 0);
  Json profiles = Json::array({"none"});
  for (const auto& profile : cache.profiles) profiles.push_back(profile.first);
  return dump({{"model", options_.reader.model_name},
               {"model_hash", model_->info().hash},
               {"version", version()},
               {"n_ctx", model_->info().context},
               {"total_slots", options_.limits.max_sequences},
               {"chat_template", tokenizer_.chat_template()},
               {"default_generation_settings", sampling_json(options_.reader.sampler)},
               {"a2sf",
                {{"policy", chosen ? Json(chosen->text) : Json()},
                 {"profile", cache.profile},
                 {"profiles", std::move(profiles)},
                 {"memory_bytes", options_.limits.memory},
                 {"queue", options_.limits.queue},
                 {"step_tokens", options_.limits.step_tokens}}}});
}

// As vLLM has it.
std::string Service::tokenizer_info() const {
  const auto piece = [&](std::optional<Token> token) { return token ? Json(tokenizer_.piece(*token, true)) : Json(); };
  return dump({{"tokenizer_class", "GGUF"},
               {"bos_token", piece(tokenizer_.bos())},
               {"eos_token", piece(tokenizer_.eos())},
               {"add_bos_token", tokenizer_.adds_bos()},
               {"vocab_size", tokenizer_.vocabulary_size()},
               {"model_max_length", model_->info().context},
               {"chat_template", tokenizer_.has_chat_template() ? Json(tokenizer_.chat_template()) : Json()}});
}

}  // namespace a2sf::serve
