#include "eval/evaluation.h"

#include <fmt/format.h>

#include <utility>

namespace a2sf {
namespace {

// A task with so many shots.
struct Part {
  TaskInfo task;
  std::size_t shots;
  std::vector<ChoiceItem> items;
};

class Evaluator {
 public:
  Evaluator(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const EvaluationOptions& options,
            ItemResults& results, const ItemProgress& progress)
      : model_(model), tokenizer_(tokenizer), options_(options), results_(results), progress_(progress) {
    for (const EvaluatedPolicy& policy : options.policies) specs_.push_back(to_string(policy.spec));
  }

  Result<Evaluation> run() {
    if (auto read = read_parts(); !read) return tl::unexpected(read.error());
    for (const Part& part : parts_) {
      for (std::size_t policy = 0; policy < specs_.size(); ++policy) {
        if (auto computed = compute_missing(part, policy); !computed) return tl::unexpected(computed.error());
      }
    }
    Evaluation evaluation;
    for (const Part& part : parts_) summarise(part, evaluation);
    return evaluation;
  }

 private:
  Status read_parts() {
    for (const TaskInfo& task : options_.tasks) {
      for (const std::size_t shots : options_.shots) {
        auto items =
            read_items(options_.data, task, {.shots = shots, .limit = options_.limit, .rules = options_.rules});
        if (!items) return tl::unexpected(items.error());
        total_ += items->size() * specs_.size();
        parts_.push_back({task, shots, std::move(*items)});
      }
    }
    return {};
  }

  ItemResult result_for(const Part& part, std::size_t policy, const ChoiceItem& item) const {
    const EvaluatedPolicy& evaluated = options_.policies[policy];
    return {std::string(part.task.name),
            part.shots,
            specs_[policy],
            evaluated.budget,
            evaluated.budget_hash,
            item.item,
            {},
            0,
            item.gold};
  }

  Status compute_missing(const Part& part, std::size_t policy) {
    std::vector<ChoiceItem> missing;
    for (const ChoiceItem& item : part.items) {
      if (results_.find(result_for(part, policy, item)) == nullptr) missing.push_back(item);
    }
    done_ += part.items.size() - missing.size();
    if (missing.empty()) return go_on();
    std::vector<ItemResult> batch;
    Status added;
    const auto scored = [&](std::size_t index, std::vector<ChoiceScore> scores) {
      ItemResult& result = batch.emplace_back(result_for(part, policy, missing[index]));
      result.choice = best_choice(scores, options_.rules);
      result.scores = std::move(scores);
      ++done_;
      if (batch.size() < kFlushedTogether) return true;
      added = results_.add(std::exchange(batch, {}));
      return added && go_on().has_value();
    };
    const ScoringOptions scoring{options_.policies[policy].spec, options_.kv_type, options_.rules};
    auto done = score_items(model_, tokenizer_, missing, scoring, scored);
    if (added) added = results_.add(batch);
    if (!added) return added;
    if (done || done.error().kind == ErrorKind::cancelled) return done;
    return fail(done.error().kind,
                fmt::format("{}, {} shots, {}: {}", part.task.name, part.shots, specs_[policy], done.error().message));
  }

  Status go_on() const {
    if (!progress_ || progress_(done_, total_)) return {};
    return fail(ErrorKind::cancelled, "interrupted");
  }

  // What each item came to under one policy.
  struct Outcomes {
    std::vector<double> right, right_by_length, gold_logprob;
  };

  Outcomes outcomes_of(const Part& part, std::size_t policy) const {
    Outcomes outcomes;
    for (const ChoiceItem& item : part.items) {
      const ItemResult& result = *results_.find(result_for(part, policy, item));
      outcomes.right.push_back(result.choice == result.gold ? 1 : 0);
      outcomes.right_by_length.push_back(best_choice_by_length(result.scores, options_.rules) == result.gold ? 1 : 0);
      outcomes.gold_logprob.push_back(result.scores[result.gold].logprob);
    }
    return outcomes;
  }

  void summarise(const Part& part, Evaluation& evaluation) const {
    std::vector<Outcomes> outcomes;
    for (std::size_t policy = 0; policy < specs_.size(); ++policy) {
      outcomes.push_back(outcomes_of(part, policy));
      const Outcomes& own = outcomes.back();
      evaluation.rows.push_back({std::string(part.task.name), part.shots, policy, part.items.size(),
                                 estimate(own.right), estimate(own.right_by_length), part.task.has_acc_norm,
                                 estimate(own.gold_logprob)});
    }
    for (std::size_t a = 0; a < specs_.size(); ++a) {
      for (std::size_t b = a + 1; b < specs_.size(); ++b) {
        if (is_comparable(a, b)) evaluation.pairs.push_back(pair_of(part, a, b, outcomes[a], outcomes[b]));
      }
    }
  }

  bool is_comparable(std::size_t a, std::size_t b) const {
    const EvaluatedPolicy &first = options_.policies[a], &second = options_.policies[b];
    return !first.spec.keeps_all() && !second.spec.keeps_all() && first.budget == second.budget;
  }

  static EvaluationPair pair_of(const Part& part, std::size_t a, std::size_t b, const Outcomes& of_a,
                                const Outcomes& of_b) {
    EvaluationPair pair;
    pair.task = part.task.name;
    pair.shots = part.shots;
    pair.a = a;
    pair.b = b;
    pair.items = part.items.size();
    std::vector<double> differences;
    std::size_t only_a = 0, only_b = 0;
    for (std::size_t i = 0; i < part.items.size(); ++i) {
      only_a += of_a.right[i] > of_b.right[i];
      only_b += of_b.right[i] > of_a.right[i];
      differences.push_back(of_a.gold_logprob[i] - of_b.gold_logprob[i]);
    }
    pair.acc_difference =
        (static_cast<double>(only_a) - static_cast<double>(only_b)) / static_cast<double>(part.items.size());
    pair.mcnemar_p = mcnemar_p(only_a, only_b);
    pair.logprob_difference = estimate(differences);
    return pair;
  }

  static constexpr std::size_t kFlushedTogether = 16;

  const std::shared_ptr<const Model>& model_;
  const Tokenizer& tokenizer_;
  const EvaluationOptions& options_;
  ItemResults& results_;
  const ItemProgress& progress_;
  std::vector<std::string> specs_;
  std::vector<Part> parts_;
  std::size_t done_ = 0, total_ = 0;
};

}  // namespace

Result<Evaluation> evaluate(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                            const EvaluationOptions& options, ItemResults& results, const ItemProgress& progress) {
  return Evaluator(model, tokenizer, options, results, progress).run();
}

}  // namespace a2sf
