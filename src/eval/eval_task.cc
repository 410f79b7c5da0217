#include "eval/eval_task.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/text_file.h"
#include "eval/answers.h"
#include "eval/perplexity.h"
#include "eval/tasks/answer_task.h"

namespace a2sf {
namespace {

constexpr std::size_t kWindow = 2048;  // tokens of a window of a text, where the model's context has room for them

// The items of some indices.
template <class Item>
std::vector<Item> picked(const std::vector<Item>& all, std::span<const std::size_t> indices) {
  std::vector<Item> items;
  for (const std::size_t index : indices) items.push_back(all[index]);
  return items;
}

class ChoiceTask final : public EvalTask {
 public:
  ChoiceTask(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const EvalTaskOptions& options,
             std::vector<ChoiceItem> items)
      : model_(model), tokenizer_(tokenizer), options_(options), items_(std::move(items)) {}

  std::size_t items() const override { return items_.size(); }

  Status run(const PolicySpec& policy, std::span<const std::size_t> items, const FoundOutcome& found) const override {
    const auto scored = [&](std::size_t index, std::vector<ChoiceScore> scores) {
      const std::size_t choice = best_choice(scores, options_.rules);
      return found(items[index], ChoiceOutcome{std::move(scores), choice, items_[items[index]].gold});
    };
    return score_items(model_, tokenizer_, picked(items_, items), {policy, options_.kv_type, options_.rules}, scored);
  }

 private:
  const std::shared_ptr<const Model>& model_;
  const Tokenizer& tokenizer_;
  EvalTaskOptions options_;
  std::vector<ChoiceItem> items_;
};

class AnswerTask final : public EvalTask {
 public:
  AnswerTask(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const EvalTaskOptions& options,
             const AnswerTaskInfo& info, std::vector<AnswerItem> items)
      : model_(model), tokenizer_(tokenizer), options_(options), info_(info), items_(std::move(items)) {}

  std::size_t items() const override { return items_.size(); }

  Status run(const PolicySpec& policy, std::span<const std::size_t> items, const FoundOutcome& found) const override {
    const auto answered = [&](std::size_t index, Answer answer) {
      const double score = score_answer(info_, items_[items[index]], answer.text);
      return found(items[index], AnswerOutcome{std::move(answer.text), answer.tokens, score});
    };
    return answer_items(model_, tokenizer_, info_, picked(items_, items), {policy, options_.kv_type}, answered);
  }

 private:
  const std::shared_ptr<const Model>& model_;
  const Tokenizer& tokenizer_;
  EvalTaskOptions options_;
  const AnswerTaskInfo& info_;
  std::vector<AnswerItem> items_;
};

// Windows of a text, as in perplexity(), every prediction scored. An item is a window.
class WindowTask final : public EvalTask {
 public:
  WindowTask(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const EvalTaskOptions& options,
             std::vector<Token> tokens)
      : model_(model), options_(options), tokens_(std::move(tokens)) {
    const std::int64_t context = model->info().context;
    window_ = context > 0 ? std::min(kWindow, static_cast<std::size_t>(context)) : kWindow;
    if (tokenizer.adds_bos() && !tokens_.empty()) first_token_ = tokens_.front();
  }

  std::size_t items() const override {
    const std::size_t windows = tokens_.size() / window_;
    return options_.limit == 0 ? windows : std::min(windows, options_.limit);
  }

  Status run(const PolicySpec& policy, std::span<const std::size_t> items, const FoundOutcome& found) const override {
    for (const std::size_t item : items) {
      const auto report = perplexity(model_, std::span(tokens_).subspan(item * window_, window_),
                                     {.policy = policy,
                                      .kv_type = options_.kv_type,
                                      .window = window_,
                                      .score = ScoredPart::all,
                                      .first_token = first_token_});
      if (!report) return tl::unexpected(report.error());
      const double logprob = -std::log(report->perplexity) * static_cast<double>(report->tokens_scored);
      if (!found(item, WindowOutcome{logprob, report->tokens_scored})) return fail(ErrorKind::cancelled, "interrupted");
    }
    return {};
  }

 private:
  const std::shared_ptr<const Model>& model_;
  EvalTaskOptions options_;
  std::vector<Token> tokens_;
  std::size_t window_;
  Token first_token_ = -1;
};

using OpenTask = Result<std::unique_ptr<EvalTask>>;

OpenTask open_windows(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const EvalTaskInfo& info,
                      const EvalTaskOptions& options) {
  const std::string path = fmt::format("{}/{}", options.data, info.file);
  if (options.shots > 0)
    return fail(ErrorKind::bad_input,
                fmt::format("the task '{}' is a text: it can be run with 0 shots only", info.name));
  const auto text = read_text_file(path, "text");
  if (!text) return tl::unexpected(text.error());
  auto tokens = tokenizer.encode(*text, true, false);
  if (!tokens) return fail(tokens.error().kind, fmt::format("{}: {}", path, tokens.error().message));
  auto task = std::make_unique<WindowTask>(model, tokenizer, options, std::move(*tokens));
  if (task->items() == 0) return fail(ErrorKind::bad_input, fmt::format("{} has not one whole window", path));
  return task;
}

OpenTask open_answers(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const EvalTaskInfo& info,
                      const EvalTaskOptions& options) {
  const AnswerTaskInfo& task = *find_answer_task(info.name);
  const std::int64_t context = model->info().context;
  if (context > 0 && static_cast<std::size_t>(context) < task.haystack.tokens)
    return fail(ErrorKind::bad_input, fmt::format("the task '{}' needs a context of {} tokens, the model's has {}",
                                                  info.name, task.haystack.tokens, context));
  const auto count = [&](std::string_view text) {
    return tokenizer.encode(text, true, false).map([](const std::vector<Token>& tokens) { return tokens.size(); });
  };
  auto items = read_answer_items(options.data, task,
                                 {.shots = options.shots, .limit = options.limit, .rules = options.rules}, count);
  if (!items) return tl::unexpected(items.error());
  return std::make_unique<AnswerTask>(model, tokenizer, options, task, std::move(*items));
}

OpenTask open_choices(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const EvalTaskInfo& info,
                      const EvalTaskOptions& options) {
  const auto task = find_task(info.name);
  if (!task) return tl::unexpected(task.error());
  auto items =
      read_items(options.data, *task, {.shots = options.shots, .limit = options.limit, .rules = options.rules});
  if (!items) return tl::unexpected(items.error());
  return std::make_unique<ChoiceTask>(model, tokenizer, options, std::move(*items));
}

}  // namespace

std::vector<EvalTaskInfo> eval_tasks() {
  std::vector<EvalTaskInfo> tasks;
  for (const TaskInfo& task : all_tasks())
    tasks.push_back({std::string(task.name), std::string(task.file), TaskKind::choices});
  for (const AnswerTaskInfo& task : answer_tasks())
    tasks.push_back({std::string(task.name), std::string(task.file), TaskKind::answers});
  tasks.push_back({"wikitext2", "wikitext2/wiki.test.raw", TaskKind::windows});
  return tasks;
}

Result<EvalTaskInfo> find_eval_task(std::string_view name) {
  std::string names;
  for (EvalTaskInfo& task : eval_tasks()) {
    if (task.name == name) return std::move(task);
    names += fmt::format("{}{}", names.empty() ? "" : ", ", task.name);
  }
  return fail(ErrorKind::bad_input, fmt::format("there is no task '{}'; there are {}", name, names));
}

Result<std::unique_ptr<EvalTask>> open_task(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer,
                                            const EvalTaskInfo& info, const EvalTaskOptions& options) {
  if (info.kind == TaskKind::windows) return open_windows(model, tokenizer, info, options);
  return (info.kind == TaskKind::answers ? open_answers : open_choices)(model, tokenizer, info, options);
}

}  // namespace a2sf
