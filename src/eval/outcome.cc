#include "eval/outcome.h"

namespace a2sf {
namespace {

using Json = nlohmann::ordered_json;

bool is_count(const Json& json, const char* key) { return json.contains(key) && json[key].is_number_unsigned(); }
bool is_number(const Json& json, const char* key) { return json.contains(key) && json[key].is_number(); }
bool is_list(const Json& json, const char* key, std::size_t size) {
  return json.contains(key) && json[key].is_array() && json[key].size() == size;
}

std::optional<Outcome> read_choices(const Json& json) {
  const std::size_t choices = json["logprobs"].size();
  if (!is_list(json, "logprobs", choices) || !is_list(json, "tokens", choices) ||
      !is_list(json, "codepoints", choices) || !is_count(json, "choice") || !is_count(json, "gold")) {
    return std::nullopt;
  }
  ChoiceOutcome outcome{{}, json["choice"], json["gold"]};
  for (std::size_t i = 0; i < choices; ++i) {
    const Json &logprob = json["logprobs"][i], &tokens = json["tokens"][i], &codepoints = json["codepoints"][i];
    if (!logprob.is_number() || !tokens.is_number_unsigned() || !codepoints.is_number_unsigned()) return std::nullopt;
    outcome.scores.push_back({logprob, tokens, codepoints});
  }
  if (outcome.choice >= choices || outcome.gold >= choices) return std::nullopt;
  return outcome;
}

struct Writer {
  Json& json;

  void operator()(const ChoiceOutcome& outcome) const {
    Json logprobs = Json::array(), tokens = Json::array(), codepoints = Json::array();
    for (const ChoiceScore& score : outcome.scores) {
      logprobs.push_back(score.logprob);
      tokens.push_back(score.tokens);
      codepoints.push_back(score.codepoints);
    }
    json.update(Json{{"logprobs", logprobs},
                     {"tokens", tokens},
                     {"codepoints", codepoints},
                     {"choice", outcome.choice},
                     {"gold", outcome.gold}});
  }
  void operator()(const AnswerOutcome& outcome) const {
    json.update(Json{{"answer", outcome.answer}, {"tokens", outcome.tokens}, {"score", outcome.score}});
  }
  void operator()(const WindowOutcome& outcome) const {
    json.update(Json{{"logprob", outcome.logprob}, {"tokens", outcome.tokens}});
  }
};

}  // namespace

void write_outcome(const Outcome& outcome, Json& json) { std::visit(Writer{json}, outcome); }

std::optional<Outcome> read_outcome(const Json& json) {
  if (json.contains("logprobs")) return read_choices(json);
  if (!is_count(json, "tokens")) return std::nullopt;
  if (is_number(json, "logprob")) return WindowOutcome{json["logprob"], json["tokens"]};
  if (!json.contains("answer") || !json["answer"].is_string() || !is_number(json, "score")) return std::nullopt;
  return AnswerOutcome{json["answer"], json["tokens"], json["score"]};
}

}  // namespace a2sf
