#include "eval/answers.h"

#include <a2sf/batch.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "engine/generate.h"
#include "eval/segments.h"

namespace a2sf {
namespace {

constexpr std::size_t kTogether = 8;  // sequences that decode in one step

// One item on its way. The generator refers to the sampler, so that both stay where they are.
struct Dialogue {
  Dialogue(Session its_session, Sampler its_sampler, const Tokenizer& tokenizer, const AnswerTaskInfo& task)
      : session(std::move(its_session)), sampler(std::move(its_sampler)) {
    GenerateOptions options;
    options.tokens = task.most_tokens;
    if (!task.stop.empty()) options.stop = {std::string(task.stop)};
    generator.emplace(tokenizer, sampler, options);
  }

  Session session;
  Sampler sampler;
  std::optional<Generator> generator;
  std::optional<Token> next;  // to be fed
};

class Answerer {
 public:
  Answerer(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const AnswerTaskInfo& task,
           std::span<const AnswerItem> items, const AnswerOptions& options)
      : model_(model), tokenizer_(tokenizer), task_(task), items_(items), options_(options) {}

  Status run(const Answered& answered) {
    if (auto listed = list_barred(); !listed) return listed;
    for (std::size_t begin = 0; begin < items_.size(); begin += kTogether) {
      const std::size_t end = std::min(items_.size(), begin + kTogether);
      std::vector<std::unique_ptr<Dialogue>> dialogues;
      for (std::size_t i = begin; i < end; ++i) {
        auto opened = open(items_[i]);
        if (!opened)
          return fail(opened.error().kind, fmt::format("item {}: {}", items_[i].item, opened.error().message));
        dialogues.push_back(std::move(*opened));
      }
      if (auto done = decode(dialogues); !done) return done;
      for (std::size_t i = begin; i < end; ++i) {
        Generator& generator = *dialogues[i - begin]->generator;
        generator.finish();
        const Generation& generation = generator.generation();
        if (!answered(i, {generation.text, generation.tokens.size()})) return fail(ErrorKind::cancelled, "interrupted");
      }
    }
    return {};
  }

 private:
  // What the first token of an answer may not be.
  Status list_barred() {
    if (task_.stop != "\n") return {};
    for (Token token = 0; token < model_->info().vocabulary; ++token) {
      if (token < tokenizer_.vocabulary_size() && tokenizer_.is_end_of_generation(token)) barred_.push_back(token);
    }
    const auto newline = tokenizer_.encode("\n", false, false);
    if (!newline) return tl::unexpected(newline.error());
    if (!newline->empty() && newline->back() < model_->info().vocabulary) barred_.push_back(newline->back());
    return {};
  }

  // Reads the prompt and draws the first token.
  Result<std::unique_ptr<Dialogue>> open(const AnswerItem& item) const {
    auto prompt = tokenizer_.encode(item.prompt, true, false);
    if (!prompt) return tl::unexpected(prompt.error());
    if (auto known = check_tokens(*prompt, model_->info().vocabulary); !known) return tl::unexpected(known.error());
    if (prompt->empty()) return fail(ErrorKind::bad_input, "the prompt is empty");
    if (const std::int64_t context = model_->info().context; context > 0) {
      const std::int64_t room = context - static_cast<std::int64_t>(task_.most_tokens);
      if (room < 2)
        return fail(ErrorKind::bad_input, fmt::format("an answer of {} tokens leaves no room for a prompt in the "
                                                      "model's context of {}",
                                                      task_.most_tokens, context));
      prompt = cut_prompt(std::move(*prompt), static_cast<std::size_t>(room), task_.cut_in_the_middle,
                          tokenizer_.adds_bos());
    }
    const auto length = static_cast<std::int64_t>(prompt->size() + task_.most_tokens);
    auto session = Session::create(
        model_,
        {.policy = options_.policy, .kv_type = options_.kv_type, .sequence_tokens = length, .most_tokens = length});
    if (!session) return tl::unexpected(session.error());
    auto sampler = Sampler::create(tokenizer_, {});
    if (!sampler) return tl::unexpected(sampler.error());
    auto dialogue = std::make_unique<Dialogue>(std::move(*session), std::move(*sampler), tokenizer_, task_);
    const bool is_prompt = options_.policy.heeds_prompts();
    if (auto fed = dialogue->session.feed(*prompt, WantLogits::last, is_prompt); !fed)
      return tl::unexpected(fed.error());
    dialogue->next = dialogue->generator->next(without_barred(dialogue->session.logits()));
    return dialogue;
  }

  std::vector<float> without_barred(std::span<const float> logits) const {
    std::vector<float> allowed(logits.begin(), logits.end());
    for (const Token token : barred_) allowed[static_cast<std::size_t>(token)] = std::numeric_limits<float>::lowest();
    return allowed;
  }

  // Token by token, all that go on in one step.
  Status decode(const std::vector<std::unique_ptr<Dialogue>>& dialogues) {
    for (;;) {
      std::vector<Dialogue*> going;
      std::vector<Feed> feeds;
      for (const auto& dialogue : dialogues) {
        if (!dialogue->next) continue;
        going.push_back(dialogue.get());
        feeds.push_back({.session = &dialogue->session, .tokens = {&*dialogue->next, 1}});
      }
      if (going.empty()) return {};
      if (auto ran = batch_.run(feeds); !ran) return ran;
      for (std::size_t i = 0; i < going.size(); ++i) {
        if (!batch_.status(i)) return batch_.status(i);
        going[i]->next = going[i]->generator->next(batch_.logits(i));
      }
    }
  }

  const std::shared_ptr<const Model>& model_;
  const Tokenizer& tokenizer_;
  const AnswerTaskInfo& task_;
  std::span<const AnswerItem> items_;
  const AnswerOptions& options_;
  std::vector<Token> barred_;
  Batch batch_;
};

}  // namespace

std::vector<Token> cut_prompt(std::vector<Token> prompt, std::size_t longest, bool in_the_middle, bool has_bos) {
  if (prompt.size() <= longest) return prompt;
  const std::size_t before = in_the_middle ? longest / 2 : (has_bos ? 1 : 0);
  const auto begin = prompt.begin() + static_cast<std::ptrdiff_t>(before);
  prompt.erase(begin, begin + static_cast<std::ptrdiff_t>(prompt.size() - longest));
  return prompt;
}

Status answer_items(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const AnswerTaskInfo& task,
                    std::span<const AnswerItem> items, const AnswerOptions& options, const Answered& answered) {
  return Answerer(model, tokenizer, task, items, options).run(answered);
}

}  // namespace a2sf
