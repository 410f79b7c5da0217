// Items of tasks that hide facts in filler text and ask for one of them at its end: a pass key as Mohtashami and Jaggi
// ask for it (arXiv 2305.16300), or one of several, by name, as in RULER's multi-key retrieval (arXiv 2404.06654).
// Filler and wording are others, so that scores do not compare with published ones.
#pragma once

#include <string_view>
#include <vector>

#include "eval/tasks/answer_task.h"

namespace a2sf {

inline constexpr std::size_t kHaystackItems = 50;  // of a task

// The first `limit` items (0: all of them). Each follows from its number, the task and the tokenizer; its facts are the
// same at every length. A prompt has as much filler as fits: together with the longest answer it never exceeds the
// task's length. The facts are spread evenly over the filler, and the depths of those that are asked for evenly over
// the first items, however many.
Result<std::vector<AnswerItem>> make_haystacks(const AnswerTaskInfo& task, std::size_t limit,
                                               const TokenCounter& count);

}  // namespace a2sf
