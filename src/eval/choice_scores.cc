#include "eval/choice_scores.h"

#include <a2sf/batch.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "eval/segments.h"
#include "kernels/logits.h"
#include "policy/budget.h"

namespace a2sf {
namespace {

constexpr std::size_t kBatchRows = 768;  // of a batch of items: enough for products to run at their best

// A prompt, and those choices of its item that share it.
struct Prompt {
  std::size_t item;
  std::int64_t budget;  // what a ratio comes to; choices of other budgets need a cache of their own
  std::vector<Token> context;
  std::vector<std::size_t> choices;
  std::vector<std::vector<Token>> continuations;
  std::size_t longest = 0;  // context and choice together
};

// One item's prompts.
struct Request {
  std::size_t item = 0;
  std::vector<Prompt> prompts;
  std::size_t rows = 0;  // of its prompts and choices
};

class Scorer {
 public:
  Scorer(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, std::span<const ChoiceItem> items,
         const ScoringOptions& options)
      : model_(model), tokenizer_(tokenizer), items_(items), options_(options) {}

  Status run(const ScoredItem& scored) {
    if (auto made = make_requests(); !made) return made;
    for (std::size_t begin = 0; begin < requests_.size();) {
      std::size_t end = begin, rows = 0;
      while (end < requests_.size() && (end == begin || rows + requests_[end].rows <= kBatchRows))
        rows += requests_[end++].rows;
      if (auto done = run_batch(std::span(requests_).subspan(begin, end - begin)); !done) return done;
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t item = requests_[i].item;
        if (!scored(item, std::move(scores_[item]))) return fail(ErrorKind::cancelled, "interrupted");
      }
      begin = end;
    }
    return {};
  }

 private:
  Status make_requests() {
    const std::int64_t longest = model_->info().context;
    scores_.resize(items_.size());
    for (std::size_t i = 0; i < items_.size(); ++i) {
      Request& request = requests_.emplace_back();
      request.item = i;
      for (std::size_t c = 0; c < items_[i].choices.size(); ++c) {
        auto tokens = tokenise(tokenizer_, items_[i].choices[c], options_.rules,
                               static_cast<std::size_t>(std::max<std::int64_t>(0, longest)));
        if (!tokens)
          return fail(tokens.error().kind,
                      fmt::format("item {}, choice {}: {}", items_[i].item, c, tokens.error().message));
        if (auto added = add_choice(request, c, std::move(*tokens)); !added) return added;
      }
      for (const Prompt& prompt : request.prompts) {
        request.rows += prompt.context.size();
        for (const auto& continuation : prompt.continuations) request.rows += continuation.size() - 1;
      }
    }
    std::stable_sort(requests_.begin(), requests_.end(),
                     [](const Request& a, const Request& b) { return a.rows < b.rows; });
    return {};
  }

  Status add_choice(Request& request, std::size_t choice, ChoiceTokens tokens) {
    for (const auto* part : {&tokens.context, &tokens.continuation}) {
      if (auto known = check_tokens(*part, model_->info().vocabulary); !known) return known;
    }
    const std::size_t length = tokens.context.size() + tokens.continuation.size();
    const auto budget = resolved_mean(options_.policy, static_cast<std::int64_t>(length));
    if (!budget) return tl::unexpected(budget.error());
    auto& score = scores_[request.item].emplace_back();
    score.tokens = tokens.continuation.size();
    score.codepoints = items_[request.item].choices[choice].codepoints;
    auto shared = std::find_if(request.prompts.begin(), request.prompts.end(), [&](const Prompt& prompt) {
      return prompt.budget == *budget && prompt.context == tokens.context;
    });
    if (shared == request.prompts.end()) {
      request.prompts.push_back({request.item, *budget, std::move(tokens.context), {}, {}});
      shared = request.prompts.end() - 1;
    }
    shared->choices.push_back(choice);
    shared->continuations.push_back(std::move(tokens.continuation));
    shared->longest = std::max(shared->longest, length);
    return {};
  }

  Status run_batch(std::span<const Request> requests) {
    std::vector<const Prompt*> prompts;
    for (const Request& request : requests) {
      for (const Prompt& prompt : request.prompts) prompts.push_back(&prompt);
    }
    std::vector<Session> sessions;
    for (const Prompt* prompt : prompts) {
      auto session = Session::create(model_, {.policy = options_.policy,
                                              .kv_type = options_.kv_type,
                                              .sequence_tokens = static_cast<std::int64_t>(prompt->longest),
                                              .most_tokens = static_cast<std::int64_t>(prompt->longest)});
      if (!session) return tl::unexpected(session.error());
      sessions.push_back(std::move(*session));
    }
    if (auto read = read_prompts(prompts, sessions); !read) return read;
    return read_choices(prompts, sessions);
  }

  // The last row of a context says how probable the first token of each choice is.
  Status read_prompts(const std::vector<const Prompt*>& prompts, std::vector<Session>& sessions) {
    const bool is_prompt = options_.policy.heeds_prompts();
    if (prompts.size() == 1) {  // it may be longer than a step
      const auto read = sessions[0].feed(prompts[0]->context, WantLogits::last, is_prompt);
      if (read) add_first_tokens(*prompts[0], sessions[0].logits());
      return read;
    }
    std::vector<Feed> feeds;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      feeds.push_back({.session = &sessions[i],
                       .tokens = prompts[i]->context,
                       .logits = WantLogits::last,
                       .prompt = is_prompt,
                       .prompt_ends = is_prompt});
    }
    if (auto ran = run_step(feeds); !ran) return ran;
    for (std::size_t i = 0; i < prompts.size(); ++i) add_first_tokens(*prompts[i], batch_.logits(i));
    return {};
  }

  void add_first_tokens(const Prompt& prompt, std::span<const float> logits) {
    const double log_sum = log_sum_exp(logits);
    for (std::size_t i = 0; i < prompt.choices.size(); ++i) {
      scores_[prompt.item][prompt.choices[i]].logprob +=
          logits[static_cast<std::size_t>(prompt.continuations[i].front())] - log_sum;
    }
  }

  // Every choice of more than one token in a fork of its prompt's sequence.
  Status read_choices(const std::vector<const Prompt*>& prompts, const std::vector<Session>& sessions) {
    std::vector<Session> forks;
    std::vector<std::pair<const Prompt*, std::size_t>> owners;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      for (std::size_t c = 0; c < prompts[i]->choices.size(); ++c) {
        if (prompts[i]->continuations[c].size() < 2) continue;
        auto fork = sessions[i].fork();
        if (!fork) return tl::unexpected(fork.error());
        forks.push_back(std::move(*fork));
        owners.emplace_back(prompts[i], c);
      }
    }
    std::vector<Feed> feeds;
    for (std::size_t i = 0; i < forks.size(); ++i) {
      const std::span<const Token> tokens = owners[i].first->continuations[owners[i].second];
      feeds.push_back({.session = &forks[i],
                       .tokens = tokens.first(tokens.size() - 1),
                       .logits = WantLogits::none,
                       .next = tokens.subspan(1)});
    }
    if (auto ran = run_step(feeds); !ran) return ran;
    for (std::size_t i = 0; i < forks.size(); ++i) {
      const auto& [prompt, choice] = owners[i];
      for (const double logprob : batch_.log_probabilities(i))
        scores_[prompt->item][prompt->choices[choice]].logprob += logprob;
    }
    return {};
  }

  Status run_step(std::span<const Feed> feeds) {
    if (auto ran = batch_.run(feeds); !ran) return ran;
    for (std::size_t i = 0; i < feeds.size(); ++i) {
      if (!batch_.status(i)) return batch_.status(i);
    }
    return {};
  }

  const std::shared_ptr<const Model>& model_;
  const Tokenizer& tokenizer_;
  std::span<const ChoiceItem> items_;
  const ScoringOptions& options_;
  std::vector<Request> requests_;
  std::vector<std::vector<ChoiceScore>> scores_;  // of each item
  Batch batch_;
};

template <class Value>
std::size_t best_by(std::span<const ChoiceScore> scores, const Value& value) {
  const auto best = std::max_element(scores.begin(), scores.end(),
                                     [&](const ChoiceScore& a, const ChoiceScore& b) { return value(a) < value(b); });
  return static_cast<std::size_t>(best - scores.begin());
}

double value_of(const ChoiceScore& score, EvalRules rules) {
  return rules == EvalRules::paper ? score.logprob / static_cast<double>(score.tokens) : score.logprob;
}

Result<ChoiceTokens> encode_together(const Tokenizer& tokenizer, const Choice& choice) {
  // Blanks at the end of a context belong to the token that follows.
  const std::size_t end = choice.context.find_last_not_of(" \t\n\v\f\r") + 1;
  const std::string context = choice.context.substr(0, end);
  auto whole = tokenizer.encode(choice.context + choice.continuation, true, false);
  const auto before = tokenizer.encode(context, true, false);
  if (!whole) return tl::unexpected(whole.error());
  if (!before) return tl::unexpected(before.error());
  const auto cut = whole->begin() + static_cast<std::ptrdiff_t>(std::min(before->size(), whole->size()));
  return ChoiceTokens{{whole->begin(), cut}, {cut, whole->end()}};
}

Result<ChoiceTokens> encode_apart(const Tokenizer& tokenizer, const Choice& choice) {
  auto context = tokenizer.encode(choice.context, false, false);
  auto continuation = tokenizer.encode(choice.continuation, false, false);
  if (!context) return tl::unexpected(context.error());
  if (!continuation) return tl::unexpected(continuation.error());
  return ChoiceTokens{std::move(*context), std::move(*continuation)};
}

}  // namespace

Result<ChoiceTokens> tokenise(const Tokenizer& tokenizer, const Choice& choice, EvalRules rules, std::size_t longest) {
  auto tokens = rules == EvalRules::lm_eval ? encode_together(tokenizer, choice) : encode_apart(tokenizer, choice);
  if (!tokens) return tokens;
  auto& [context, continuation] = *tokens;
  if (context.empty()) return fail(ErrorKind::bad_input, "there is no context before the choice");
  if (continuation.empty()) return fail(ErrorKind::bad_input, "the choice is empty");
  const std::size_t length = context.size() + continuation.size();
  if (longest == 0 || length <= longest) return tokens;
  if (continuation.size() >= longest) {
    return fail(ErrorKind::bad_input, fmt::format("the choice of {} tokens is longer than the model's context of {}",
                                                  continuation.size(), longest));
  }
  context.erase(context.begin(), context.begin() + static_cast<std::ptrdiff_t>(length - longest));
  return tokens;
}

Status score_items(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                   std::span<const ChoiceItem> items, const ScoringOptions& options, const ScoredItem& scored) {
  return Scorer(model, tokenizer, items, options).run(scored);
}

std::size_t best_choice(std::span<const ChoiceScore> scores, EvalRules rules) {
  return best_by(scores, [&](const ChoiceScore& score) { return value_of(score, rules); });
}

std::size_t best_choice_by_length(std::span<const ChoiceScore> scores, EvalRules rules) {
  return best_by(scores, [&](const ChoiceScore& score) {
    return value_of(score, rules) / static_cast<double>(std::max<std::size_t>(1, score.codepoints));
  });
}

}  // namespace a2sf
