// Log-probabilities of the choices of many items under one policy.
#pragma once

#include <a2sf/session.h>
#include <a2sf/text.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "eval/tasks/task.h"

namespace a2sf {

// A choice as tokens: the continuation is scored.
struct ChoiceTokens {
  std::vector<Token> context, continuation;  // neither is empty
};

// By the rules' way of tokenising. A context that leaves no room in `longest` tokens (0: no limit) loses its beginning.
// Fails where there is nothing to score, or nothing before it.
Result<ChoiceTokens> tokenise(const Tokenizer& tokenizer, const Choice& choice, EvalRules rules, std::size_t longest);

struct ChoiceScore {
  double logprob = 0;  // sum over its tokens, in nats
  std::size_t tokens = 0, codepoints = 0;
};

struct ScoringOptions {
  PolicySpec policy;  // a ratio is one of context and choice together; under block = prompt the context is the prompt
  KvType kv_type = KvType::f16;
  EvalRules rules = EvalRules::lm_eval;
};

// What an item came to: its index among the caller's, and the scores of its choices. false cancels.
using ScoredItem = std::function<bool(std::size_t index, std::vector<ChoiceScore> scores)>;

// Scores items, shortest first, and hands out each as soon as its batch is done. Prompts of about one length share a
// step, then all their choices do; a context that several choices share is read once, and the cache forked, where their
// budgets are the same. The result of an item depends on no other.
Status score_items(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                   std::span<const ChoiceItem> items, const ScoringOptions& options, const ScoredItem& scored);

// Which choice is taken, the first of equals: by the sums (lm-eval's acc), or by the means per token (paper).
std::size_t best_choice(std::span<const ChoiceScore> scores, EvalRules rules);
// By the same, divided by the choice's code points (acc_norm).
std::size_t best_choice_by_length(std::span<const ChoiceScore> scores, EvalRules rules);

}  // namespace a2sf
