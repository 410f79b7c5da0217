#include "tune/task_tuning.h"

#include <utility>

namespace a2sf {
namespace {

// What all right choices of one evaluation come to.
struct TaskSums {
  double loss = 0, wrong = 0;
  std::size_t items = 0;

  void add(const ChoiceItem& item, std::span<const ChoiceScore> scores, EvalRules rules) {
    const ChoiceScore& right = scores[item.gold];
    loss -= right.logprob / static_cast<double>(right.tokens);
    wrong += best_choice(scores, rules) == item.gold ? 0 : 1;
    ++items;
  }
};

double cost_of(const TaskSums& sums, TaskCost cost) {
  constexpr double kTieBreak = 1e-4;  // less than one item of thousands
  const auto count = static_cast<double>(sums.items);
  return cost == TaskCost::log_loss ? sums.loss / count : (sums.wrong + kTieBreak * sums.loss) / count;
}

std::vector<ShareTable> equal_shares(const ModelInfo& info) {
  return {{.shares = std::vector(static_cast<std::size_t>(info.layers),
                                 std::vector<double>(static_cast<std::size_t>(info.kv_heads), 1))}};
}

std::vector<ShareTable> with_memories(std::vector<ShareTable> tables, const MemoryTable& memories) {
  for (ShareTable& table : tables) {
    table.alphas.clear();
    table.memories = memories;
  }
  return tables;
}

class TaskTuner {
 public:
  TaskTuner(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const TaskTuning& tuning,
            const TuneProgress& progress)
      : model_(model),
        tokenizer_(tokenizer),
        tuning_(tuning),
        progress_(progress),
        tables_(tuning.shares != nullptr ? tuning.shares->tables : equal_shares(model->info())),
        total_(calls_of(tuning.search, layers(), kv_heads()) * tuning.specs.size() * tuning.items.size()) {}

  Result<std::vector<ShareTable>> run() {
    if (tuning_.items.empty() || tuning_.specs.empty())
      return fail(ErrorKind::bad_input, "there is nothing to tune on: no items, or no budget");
    const auto memories = search_memories(layers(), kv_heads(), tuning_.search,
                                          [&](const MemoryTable& tried) { return cost_with(tried); });
    if (!memories) return tl::unexpected(memories.error());
    return with_memories(tables_, *memories);
  }

 private:
  std::size_t layers() const { return static_cast<std::size_t>(model_->info().layers); }
  std::size_t kv_heads() const { return static_cast<std::size_t>(model_->info().kv_heads); }

  Result<double> cost_with(const MemoryTable& memories) {
    const auto profile = std::make_shared<const Profile>(Profile{.tables = with_memories(tables_, memories)});
    TaskSums sums;
    for (PolicySpec spec : tuning_.specs) {
      if (auto shared = share_by(spec, profile); !shared) return tl::unexpected(shared.error());
      const auto scored = [&](std::size_t index, const std::vector<ChoiceScore>& scores) {
        sums.add(tuning_.items[index], scores, tuning_.rules);
        return !progress_ || progress_(++done_, total_);
      };
      const auto done =
          score_items(model_, tokenizer_, tuning_.items, {.policy = spec, .rules = tuning_.rules}, scored);
      if (!done) return tl::unexpected(done.error());
    }
    return cost_of(sums, tuning_.cost);
  }

  const std::shared_ptr<const Model>& model_;
  const Tokenizer& tokenizer_;
  const TaskTuning& tuning_;
  const TuneProgress& progress_;
  std::vector<ShareTable> tables_;
  std::size_t done_ = 0, total_;
};

}  // namespace

Result<std::vector<ShareTable>> tune_memories(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                                              const TaskTuning& tuning, const TuneProgress& progress) {
  return TaskTuner(model, tokenizer, tuning, progress).run();
}

}  // namespace a2sf
