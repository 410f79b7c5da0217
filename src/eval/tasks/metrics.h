// How right an answer in words is, from 0 to 1: what the published scripts of a task compute, their quirks included.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

// GSM8K, "flexible-extract" of lm-evaluation-harness: whether the answer's last number is `gold`.
double number_match(std::string_view answer, std::string_view gold);

// Facts in a haystack: whether the answer's first number is `gold`.
double first_number_match(std::string_view answer, std::string_view gold);

// The others are LongBench's. F1 of the words, case, punctuation and articles left out.
double word_f1(std::string_view answer, std::string_view gold);
// F of ROUGE-L over all sentences as the Python package rouge 1.0.1 has it: each different word counts once.
double rouge_l(std::string_view answer, std::string_view gold);
// 1 / the number of classes named in the answer where `gold` is one of them, else 0.
double class_match(std::string_view answer, std::string_view gold, const std::vector<std::string>& classes);
// The share of the answer's numbers that are the one of the right "Paragraph 7".
double paragraph_match(std::string_view answer, std::string_view gold);
// Edit similarity, in whole percents, of the answer's first line that has no comment and no Markdown.
double code_similarity(std::string_view answer, std::string_view gold);

}  // namespace a2sf
