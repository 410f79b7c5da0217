#include "eval/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace a2sf {
namespace {

// A task with so many shots.
struct Part {
  EvalTaskInfo task;
  std::size_t shots;
  std::unique_ptr<EvalTask> items;
};

// The measures of one kind of outcome, of one item: names are those of Measure.
struct Values {
  EvalRules rules;

  std::vector<std::pair<std::string, double>> operator()(const ChoiceOutcome& outcome) const {
    const bool right = outcome.choice == outcome.gold;
    const bool right_by_length = best_choice_by_length(outcome.scores, rules) == outcome.gold;
    return {{"acc", right ? 1 : 0},
            {"acc_norm", right_by_length ? 1 : 0},
            {"gold_logprob", outcome.scores[outcome.gold].logprob}};
  }
  std::vector<std::pair<std::string, double>> operator()(const AnswerOutcome& outcome) const {
    return {{"score", outcome.score}};
  }
  std::vector<std::pair<std::string, double>> operator()(const WindowOutcome& outcome) const {
    return {{"loss", -outcome.logprob / static_cast<double>(std::max<std::size_t>(1, outcome.tokens))}};
  }
};

// One measure of one policy, item by item.
struct Series {
  std::string name;
  std::vector<double> values;
};

std::vector<double> differences(const Series& a, const Series& b) {
  std::vector<double> all;
  for (std::size_t i = 0; i < a.values.size(); ++i) all.push_back(a.values[i] - b.values[i]);
  return all;
}

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
    for (const EvalTaskInfo& task : options_.tasks) {
      for (const std::size_t shots : options_.shots) {
        auto items = open_task(model_, tokenizer_, task,
                               {.data = options_.data,
                                .shots = shots,
                                .limit = options_.limit,
                                .rules = options_.rules,
                                .kv_type = options_.kv_type});
        if (!items) return tl::unexpected(items.error());
        total_ += (*items)->items() * specs_.size();
        parts_.push_back({task, shots, std::move(*items)});
      }
    }
    return {};
  }

  ItemResult result_for(const Part& part, std::size_t policy, std::size_t item) const {
    const EvaluatedPolicy& evaluated = options_.policies[policy];
    return {part.task.name, part.shots, specs_[policy], evaluated.budget, evaluated.budget_hash, item, {}};
  }

  // A line whose outcome is of another kind is none.
  const ItemResult* find(const Part& part, std::size_t policy, std::size_t item) const {
    const ItemResult* result = results_.find(result_for(part, policy, item));
    const bool is_of_task = result != nullptr && result->outcome.index() == static_cast<std::size_t>(part.task.kind);
    return is_of_task ? result : nullptr;
  }

  Status compute_missing(const Part& part, std::size_t policy) {
    std::vector<std::size_t> missing;
    for (std::size_t item = 0; item < part.items->items(); ++item) {
      if (find(part, policy, item) == nullptr) missing.push_back(item);
    }
    done_ += part.items->items() - missing.size();
    if (missing.empty()) return go_on();
    // An item of a few choices costs little beside a line on its own; of the others every one is worth it.
    const std::size_t together = part.task.kind == TaskKind::choices ? kFlushedTogether : 1;
    std::vector<ItemResult> batch;
    Status added;
    const auto found = [&](std::size_t item, Outcome outcome) {
      batch.push_back(result_for(part, policy, item));
      batch.back().outcome = std::move(outcome);
      ++done_;
      if (batch.size() < together) return true;
      added = results_.add(std::exchange(batch, {}));
      return added && go_on().has_value();
    };
    auto done = part.items->run(options_.policies[policy].spec, missing, found);
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
  std::vector<Series> series_of(const Part& part, std::size_t policy) const {
    std::vector<Series> all;
    for (std::size_t item = 0; item < part.items->items(); ++item) {
      const auto values = std::visit(Values{options_.rules}, find(part, policy, item)->outcome);
      all.resize(values.size());
      for (std::size_t i = 0; i < values.size(); ++i) {
        all[i].name = values[i].first;
        all[i].values.push_back(values[i].second);
      }
    }
    const auto task = find_task(part.task.name);
    if (task && !task->has_acc_norm) std::erase_if(all, [](const Series& each) { return each.name == "acc_norm"; });
    return all;
  }

  void summarise(const Part& part, Evaluation& evaluation) const {
    std::vector<std::vector<Series>> series;
    for (std::size_t policy = 0; policy < specs_.size(); ++policy) {
      EvaluationRow row{part.task.name, part.task.kind, part.shots, policy, part.items->items(), {}};
      series.push_back(series_of(part, policy));
      for (const Series& each : series.back()) row.measures.push_back({each.name, estimate(each.values)});
      evaluation.rows.push_back(std::move(row));
    }
    for (std::size_t a = 0; a < specs_.size(); ++a) {
      for (std::size_t b = a + 1; b < specs_.size(); ++b) {
        if (is_comparable(a, b)) evaluation.pairs.push_back(pair_of(part, a, b, series[a], series[b]));
      }
    }
  }

  bool is_comparable(std::size_t a, std::size_t b) const {
    const EvaluatedPolicy &first = options_.policies[a], &second = options_.policies[b];
    return !first.spec.keeps_all() && !second.spec.keeps_all() && first.budget == second.budget;
  }

  static EvaluationPair pair_of(const Part& part, std::size_t a, std::size_t b, const std::vector<Series>& of_a,
                                const std::vector<Series>& of_b) {
    EvaluationPair pair{part.task.name, part.task.kind, part.shots, a, b, part.items->items(), {}, {}};
    for (std::size_t i = 0; i < of_a.size(); ++i) {
      const auto each = differences(of_a[i], of_b[i]);
      pair.differences.push_back({of_a[i].name, estimate(each)});
      if (of_a[i].name != "acc") continue;
      const auto only = [&](double difference) {
        return static_cast<std::size_t>(std::count(each.begin(), each.end(), difference));
      };
      pair.mcnemar_p = mcnemar_p(only(1), only(-1));
    }
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

const Estimate* find_measure(const std::vector<Measure>& measures, std::string_view name) {
  const auto found =
      std::find_if(measures.begin(), measures.end(), [&](const Measure& each) { return each.name == name; });
  return found == measures.end() ? nullptr : &found->value;
}

Result<Evaluation> evaluate(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                            const EvaluationOptions& options, ItemResults& results, const ItemProgress& progress) {
  return Evaluator(model, tokenizer, options, results, progress).run();
}

}  // namespace a2sf
