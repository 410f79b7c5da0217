// Answers in words to many items under one policy.
#pragma once

#include <a2sf/session.h>
#include <a2sf/text.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/tasks/answer_task.h"

namespace a2sf {

// The first and the last tokens of a prompt that is too long, half of `longest` each, as LongBench cuts; or its last
// ones. A BOS token at the beginning stays.
std::vector<Token> cut_prompt(std::vector<Token> prompt, std::size_t longest, bool in_the_middle, bool has_bos);

struct AnswerOptions {
  PolicySpec policy;  // a ratio is one of the prompt and the longest answer together
  KvType kv_type = KvType::f16;
};

struct Answer {
  std::string text;  // up to the task's stop
  std::size_t tokens = 0;
};

// What an item was answered: its index among the caller's. false cancels.
using Answered = std::function<bool(std::size_t index, Answer answer)>;

// Answers items greedily, several at a time, in their order. Prompts and answers together fill no more than the model's
// context. Where the task's stop is a newline, an answer has at least one token, which is none, as in
// LongBench. The answer to an item depends on no other.
Status answer_items(const std::shared_ptr<const Model>& model, const Tokenizer& tokenizer, const AnswerTaskInfo& task,
                    std::span<const AnswerItem> items, const AnswerOptions& options, const Answered& answered);

}  // namespace a2sf
