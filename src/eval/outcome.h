// What an item of a task comes to under one policy.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "eval/choice_scores.h"

namespace a2sf {

enum class TaskKind { choices, answers, windows };

// Of several choices one is taken.
struct ChoiceOutcome {
  std::vector<ChoiceScore> scores;  // of each choice
  std::size_t choice = 0, gold = 0;
};
// An answer was generated.
struct AnswerOutcome {
  std::string answer;
  std::size_t tokens = 0;  // generated
  double score = 0;        // 0 to 1, by the task's metric
};
// A window of a text was predicted.
struct WindowOutcome {
  double logprob = 0;      // of all scored tokens together, nats
  std::size_t tokens = 0;  // scored
};
// In the order of TaskKind.
using Outcome = std::variant<ChoiceOutcome, AnswerOutcome, WindowOutcome>;

// As part of an object: logprobs (nats), tokens and codepoints of each choice, choice, gold; or answer, tokens, score;
// or logprob, tokens.
void write_outcome(const Outcome& outcome, nlohmann::ordered_json& json);
// What an object has of these; nullopt: no outcome.
std::optional<Outcome> read_outcome(const nlohmann::ordered_json& json);

}  // namespace a2sf
